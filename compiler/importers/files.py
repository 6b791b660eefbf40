"""Model files: what can be wrong with one, said before a parser fails on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.formats import FORMATS, format_of
from burnish.compiler.importers.memory import check_memory

if TYPE_CHECKING:
    import torch

    from burnish.compiler.importers.keras_file import KerasFile
    from burnish.compiler.importers.model_file import ModelFile

PROGRAM, KERAS = ".pt2", ".keras"
SUFFIXES = (
    *(suffix for item in FORMATS.values() for suffix in item.suffixes),
    PROGRAM,
    KERAS,
)
SAVED_MODEL = "saved_model.pb"
INSTEAD = {
    ".pt": "load it in Python and pass the nn.Module",
    ".pth": "load it in Python and pass the nn.Module",
    ".h5": "load it in Keras and save it as .keras",
    ".hdf5": "load it in Keras and save it as .keras",
    ".pb": "a frozen graph is not read; give the folder of a SavedModel",
}


def load_file(
    path: str | os.PathLike[str],
) -> torch.export.ExportedProgram | ModelFile | KerasFile:
    """The model in a file, or in the folder of a SavedModel.

    A ``.pt2`` file is loaded; others are parsed in a child process when their content is wanted.

    Raises :class:`ImportModelError` for a path that is missing, no file or of unknown suffix, and
    for a ``.pt2`` file that is truncated or something else.
    """
    file = Path(path).expanduser()
    known = ", ".join(SUFFIXES)
    if not file.exists():
        raise ImportModelError(f"no such model file: {file}")
    if file.is_dir() and (file / SAVED_MODEL).is_file():
        from burnish.compiler.importers.keras_file import open_saved_model

        return open_saved_model(file)
    if not file.is_file():
        raise ImportModelError(
            f"{file} is no file: give the path of a model ({known}), or a SavedModel's folder, "
            f"which holds {SAVED_MODEL}"
        )
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        instead = f": {INSTEAD[suffix]}" if suffix in INSTEAD else ""
        raise ImportModelError(f"{file.name} has the suffix {suffix!r}; known are {known}{instead}")
    size = file.stat().st_size
    if size == 0:
        raise ImportModelError(f"{file} is empty")
    check_memory(size, copies=2)
    if suffix == PROGRAM:
        return _load_program(file)
    if suffix == KERAS:
        from burnish.compiler.importers.keras_file import open_keras

        return open_keras(file)
    found = format_of(suffix)
    assert found is not None
    from burnish.compiler.importers.model_file import ModelFile

    return ModelFile(file, found.kind)


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
