"""Bytes of a Relay file -> :class:`RelayModel`; nothing is converted here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from burnish.compiler.importers.relay.arrays import params_as_arrays, read_params
from burnish.compiler.importers.relay.graph import RelayError
from burnish.compiler.importers.relay.json_reader import read_json
from burnish.compiler.importers.relay.model import RelayModel
from burnish.compiler.importers.relay.text_reader import read_text

Params = bytes | Mapping[str, object] | None


def read_relay(
    path: str | os.PathLike[str], params: str | os.PathLike[str] | Mapping[str, Any] | None = None
) -> RelayModel:
    """The module in a file; ``params`` is a parameter file, or name -> array."""
    file = Path(path)
    given: Params = None
    if isinstance(params, Mapping):
        given = params
    elif params is not None:
        given = Path(params).read_bytes()
    return parse_relay(file.read_bytes(), given, file.name)


def digest(model: RelayModel) -> str:
    """sha256 of the module and its parameters."""
    return model.source_hash


def parse_relay(data: bytes, params: Params = None, name: str = "the file") -> RelayModel:
    """A module as text or JSON (told by its first byte), and its parameters.

    ``params`` is what ``relay.save_param_dict`` gave, or name -> array. Raises
    :class:`RelayError` with what is wrong, where, and what to do instead.
    """
    as_json = data.lstrip()[:1] == b"{"
    graph = read_json(data, name) if as_json else read_text(data, name)
    hashed = hashlib.sha256(data)
    arrays: dict[str, np.ndarray] = {}
    if isinstance(params, bytes):
        arrays = read_params(params, f"the parameters of {name}")
        hashed.update(params)
    elif params is not None:
        arrays = params_as_arrays(params)
        for key, array in sorted(arrays.items()):
            hashed.update(f"{key} {array.dtype} {array.shape}".encode())
            hashed.update(np.ascontiguousarray(array).tobytes())
    model = RelayModel(graph, arrays, hashed.hexdigest(), name)
    if arrays:
        names = [var.name for var in model.parameters()]
        if not any(key in arrays for key in names):
            raise RelayError(
                f"{name}: none of the parameters {', '.join(sorted(arrays)[:4])} is one of the "
                f"model's, which are {', '.join(names[:8]) or 'none'}"
            )
    return model
