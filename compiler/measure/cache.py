"""Kernel timings kept between runs, in one JSON file a folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from burnish.compiler.measure.timing import Timing


class TimingCache:
    """Timings by key. With no folder, kept in memory only.

    A file that cannot be read as JSON counts as empty and is replaced: a timing can always be
    taken again.
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.path = Path(folder) / "timings.json" if folder is not None else None
        self.entries: dict[str, Any] = self._read()

    @staticmethod
    def key(**parts: Any) -> str:
        """A short name for the parts, equal for equal parts in any order."""
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _read(self) -> dict[str, Any]:
        if self.path is None or not self.path.exists():
            return {}
        try:
            data = json.loads(self.path.read_text())
        except ValueError:
            return {}
        return data if isinstance(data, dict) else {}

    def get(self, key: str) -> Timing | None:
        entry = self.entries.get(key)
        return Timing.from_dict(entry["timing"]) if entry is not None else None

    def put(self, key: str, timing: Timing, **parts: Any) -> None:
        """Keep a timing, with its parts in readable form; what others wrote since is kept too."""
        self.put_all({key: {**parts, "timing": timing.to_dict()}})

    def put_all(self, entries: Mapping[str, Any]) -> None:
        """Keep several at once, each with its parts and its ``timing`` as a dict."""
        self.entries = {**self._read(), **self.entries, **entries}
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=self.path.parent, suffix=".part")
        with os.fdopen(fd, "w") as file:
            json.dump(self.entries, file, indent=1, sort_keys=True)
        os.replace(name, self.path)
