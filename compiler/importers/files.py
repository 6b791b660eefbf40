"""Model files: what can be wrong with one, said before a parser fails on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.formats import FORMATS, format_of
from burnish.compiler.importers.memory import check_memory

if TYPE_CHECKING:
    import torch

    from burnish.compiler.importers.keras_file import KerasFile
    from burnish.compiler.importers.model_file import ModelFile

PROGRAM, KERAS, RELAY = ".pt2", ".keras", "relay"
PARAMS_SUFFIX = ".params"
SUFFIXES = (
    *(suffix for item in FORMATS.values() for suffix in item.suffixes),
    PROGRAM,
    KERAS,
)
Params = str | os.PathLike[str] | Mapping[str, Any] | None
SAVED_MODEL = "saved_model.pb"
INSTEAD = {
    ".pt": "load it in Python and pass the nn.Module",
    ".pth": "load it in Python and pass the nn.Module",
    ".h5": "load it in Keras and save it as .keras",
    ".hdf5": "load it in Keras and save it as .keras",
    ".pb": "a frozen graph is not read; give the folder of a SavedModel",
}


def load_file(
    path: str | os.PathLike[str], params: Params = None
) -> torch.export.ExportedProgram | ModelFile | KerasFile:
    """The model in a file, or in the folder of a SavedModel.

    A ``.pt2`` file is loaded, after checks and a child process's trial of it; others are parsed
    in a child process when their content is wanted.

    ``params`` are the parameters of a Relay module: a file that ``relay.save_param_dict`` wrote,
    or name -> array. Without them a file beside the module that differs by its suffix
    ``.params`` is taken, where there is one.

    Raises :class:`ImportModelError` for a path that is missing, no file or of unknown suffix, and
    for a ``.pt2`` file that is truncated or something else.
    """
    file = Path(path).expanduser()
    known = ", ".join(SUFFIXES)
    if not file.exists():
        raise ImportModelError(f"no such model file: {file}")
    if file.is_dir() and (file / SAVED_MODEL).is_file():
        check_no_params(params)
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
    found = format_of(suffix)
    if found is None or found.kind != RELAY:
        check_no_params(params)
    if suffix == PROGRAM:
        from burnish.compiler.importers.program_file import load_program

        return load_program(file)
    if suffix == KERAS:
        from burnish.compiler.importers.keras_file import open_keras

        return open_keras(file)
    assert found is not None
    from burnish.compiler.importers.model_file import ModelFile

    return ModelFile(
        file, found.kind, params=_params(file, params) if found.kind == RELAY else None
    )


def check_no_params(params: Params) -> None:
    """Refuse parameters beside a model that brings its own."""
    if params is not None:
        raise ImportModelError(
            f"params is for Relay files ({', '.join(FORMATS[RELAY].suffixes)}): other models hold "
            "theirs"
        )


def _params(file: Path, params: Params) -> Path | Mapping[str, Any] | None:
    """The parameters given, else the file beside the module."""
    beside = file.with_suffix(PARAMS_SUFFIX)
    if params is None:
        params = beside if beside.is_file() else None
    if not isinstance(params, (str, os.PathLike)):
        return params
    given = Path(params).expanduser()
    if not given.is_file():
        raise ImportModelError(f"no such parameter file: {given}")
    check_memory(given.stat().st_size, copies=2)
    return given
