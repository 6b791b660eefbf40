"""Finished compilations by content: the second compile of a model loads what the first made.

Entries are artifacts (:mod:`burnish.compiler.artifact`) under ``compiled/`` in the cache folder,
named by :func:`~burnish.compiler.cache_key.cache_key`, and checked like any artifact when loaded.

1. An entry is written whole or not at all; of two processes that write the same one, the last
   wins, and both wrote the same model.
2. A damaged entry is compiled anew and replaced, with a warning.
3. A folder that cannot be written caches nothing and fails nothing; the report says so.
4. Beyond the limit the entries that were used least lately go first.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from burnish.compiler import artifact
from burnish.compiler.compiled import Compiled
from burnish.compiler.errors import ArtifactError, ConfigError

LIMIT = "BURNISH_CACHE_LIMIT"
DEFAULT_LIMIT = 10 * 1000**3
_UNITS = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_STALE_S = 3600.0
"""Age of an unfinished file whose writer is taken for dead."""
SUFFIX = ".burnish"


@dataclass(frozen=True)
class Entry:
    """One file of the cache: its bytes, and when it was last used (seconds since the epoch)."""

    path: Path
    bytes: int
    used: float


def limit() -> int:
    """Bytes the cache may hold, from ``$BURNISH_CACHE_LIMIT`` (``500MB``, ``10GB``); 0 is off.

    Raises :class:`ConfigError` for a text that is no size.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return DEFAULT_LIMIT
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)?", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"{LIMIT} must be a size like 500MB or 10GB, or 0 for off; got {text!r}")
    return int(float(match[1]) * _UNITS[(match[2] or "B").upper()])


def folder() -> Path:
    """Where the entries lie; it need not exist."""
    return artifact.cache_folder() / "compiled"


def entries() -> list[Entry]:
    """Finished compilations, the one used longest ago first; unreadable ones are left out."""
    return sorted(_files(folder(), f"*{SUFFIX}"), key=lambda entry: entry.used)


def load(key: str) -> Compiled | None:
    """The finished compilation of ``key``, if there is a sound one."""
    path = folder() / f"{key}{SUFFIX}"
    if not path.is_file():
        return None
    try:
        found = artifact.load_apart(path)
    except ArtifactError as error:
        said = f"compiling anew, for an entry of the compile cache is bad: {error.message}"
        warnings.warn(said, stacklevel=4)
        return None
    found.path = None
    with contextlib.suppress(OSError):  # a cache that can only be read keeps its order
        os.utime(path)
    return found


def keep(key: str, compiled: Compiled) -> str:
    """Store ``compiled``; what became of it, in words."""
    most = limit()
    if compiled.params_bytes > most:
        return f"not cached: larger than the limit of {most} bytes ({LIMIT})"
    path = folder() / f"{key}{SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        artifact.save(compiled, path, times=True)
    except (ArtifactError, OSError) as error:
        said = error.message if isinstance(error, ArtifactError) else str(error)
        return f"not cached: {said}"
    shrink(most)
    return "kept in the cache"


def shrink(most: int) -> list[Entry]:
    """Remove entries until ``most`` bytes are left, the one used longest ago first."""
    now = time.time()
    for partial in _files(folder(), f"*{SUFFIX}.*.part"):
        if now - partial.used > _STALE_S:
            with contextlib.suppress(OSError):
                partial.path.unlink()
    known = entries()
    total = sum(entry.bytes for entry in known)
    gone = []
    for entry in known:
        if total <= most:
            break
        try:
            entry.path.unlink(missing_ok=True)
        except OSError:
            continue  # not ours to remove
        total -= entry.bytes
        gone.append(entry)
    return gone


def clear() -> list[Entry]:
    """Remove every entry, and the libraries that loading artifacts unpacked; what went."""
    gone = shrink(0)
    for entry in list(_files(artifact.cache_folder() / "artifacts", "*/lib.so")):
        with contextlib.suppress(OSError):
            entry.path.unlink()
            gone.append(entry)
            entry.path.parent.rmdir()
    return gone


def _files(root: Path, pattern: str) -> Iterator[Entry]:
    for path in root.glob(pattern):
        try:
            found = path.stat()
        except OSError:
            continue  # another process removed it just now
        yield Entry(path, found.st_size, found.st_mtime)
