"""Model files: what can be wrong with one, said before a parser fails on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.memory import check_memory

SUFFIXES = (".onnx", ".pt2")


def load_file(path: str | os.PathLike[str]) -> Any:
    """The ``ModelProto`` or ``ExportedProgram`` in a file.

    Raises :class:`ImportModelError` for a path that is missing, no file or of unknown suffix, and
    for content that is truncated or something else.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise ImportModelError(f"no such model file: {file}")
    if not file.is_file():
        raise ImportModelError(f"{file} is no file: give the path of an .onnx or .pt2 file")
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise ImportModelError(
            f"{file.name} has the suffix {suffix!r}; known are {', '.join(SUFFIXES)}"
            + (": load it in Python and pass the nn.Module" if suffix in (".pt", ".pth") else "")
        )
    size = file.stat().st_size
    if size == 0:
        raise ImportModelError(f"{file} is empty")
    check_memory(size, copies=2)
    if suffix == ".pt2":
        return _load_program(file)
    from burnish.compiler.importers.onnx.checks import load_onnx

    return load_onnx(file)


def _load_program(file: Path) -> Any:
    import torch

    with file.open("rb") as stream:
        if stream.read(2) != b"PK":
            raise ImportModelError(f"{file} is no .pt2 archive (torch.export.save writes one)")
    try:
        return torch.export.load(file)
    except Exception as error:
        raise ImportModelError(
            f"{file} cannot be read as a .pt2 archive; it may be truncated: {error}"
        ) from error
