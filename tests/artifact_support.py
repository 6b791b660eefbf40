"""Artifacts taken apart and put together again, for what must be refused."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from burnish.runtime import archive
from burnish.runtime.manifest import NAME
from burnish.runtime.reading import NAMES


def members(path: Path) -> dict[str, bytes]:
    """Name -> content, as any zip program reads it."""
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(content: Mapping[str, bytes]) -> bytes:
    """The file of these members, its headers as they must be."""
    return b"".join(archive.written([(name, [data]) for name, data in content.items()]))


def hashed(content: Mapping[str, bytes], manifest: Any = None) -> dict[str, bytes]:
    """The members with a manifest whose sizes and hashes are theirs."""
    found = json.loads(content[NAME]) if manifest is None else manifest
    found["members"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in content.items()
        if name != NAME
    }
    return {**content, NAME: json.dumps(found).encode()}


def changed_manifest(saved: Path, path: Path, **changes: object) -> Path:
    """A copy whose manifest has other values; None takes a key away."""
    content = members(saved)
    manifest = json.loads(content[NAME])
    for key, value in changes.items():
        manifest[key] = value
        if value is None:
            del manifest[key]
    path.write_bytes(packed({**content, NAME: json.dumps(manifest).encode()}))
    return path


__all__ = ["NAME", "NAMES", "changed_manifest", "hashed", "members", "packed"]
