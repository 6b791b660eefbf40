"""Output files: checked before the work, and whole or absent after it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from burnish.compiler.errors import BurnishError


def check_writable(path: Path) -> None:
    """Raise :class:`BurnishError` unless a file can be written there."""
    folder = path.parent
    if path.is_dir():
        raise BurnishError(f"cannot write {path}: it is a folder", stage="save")
    if not folder.is_dir():
        raise BurnishError(f"cannot write {path}: no folder {folder}", stage="save")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BurnishError(
            f"cannot write {path}: {error.strerror or error}", stage="save"
        ) from error
    if path.exists() and not os.access(path, os.W_OK):
        raise BurnishError(f"cannot write {path}: it is read-only", stage="save")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` only on success."""
    descriptor, name = tempfile.mkstemp(
        prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
    )
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
