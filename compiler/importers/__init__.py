"""Reading a model: torch.nn.Module, ExportedProgram, ONNX, or a file -> named-weight IR."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tvm

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.files import load_file
from burnish.compiler.signature import Signature

if TYPE_CHECKING:
    import onnx
    import torch


@dataclass(frozen=True)
class ImportedModel:
    """A model as read, before any pass.

    ``mod`` keeps the convention of :mod:`burnish.passes.params`; ``main`` returns a tuple of the
    tensors in ``signature.outputs``. ``source_hash`` is the sha256 of the model's content,
    ``kind`` is ``"torch"`` or ``"onnx"``, and ``source`` the model object that was read (loaded,
    where a path was given): the baseline to compare with.
    """

    mod: tvm.IRModule
    signature: Signature
    source_hash: str
    kind: str
    source: Any = field(repr=False)

    @property
    def baseline_model(self) -> Any:
        """The model object to run as the baseline."""
        return self.source


@dataclass(frozen=True)
class LoadedModel:
    """A model read from its file, a module traced; nothing is translated yet.

    ``content`` is an ``ExportedProgram`` or a ``ModelProto``, ``names`` the arguments of a traced
    module, ``source`` the model object that was read.
    """

    content: Any = field(repr=False)
    kind: str
    source: Any = field(repr=False)
    names: list[str] | None = None

    @functools.cached_property
    def hash(self) -> str:
        """sha256 of the content: the graph and every weight."""
        if self.kind == "torch":
            from burnish.compiler.importers.pytorch.hash import program_hash

            return program_hash(self.content)
        from burnish.compiler.importers.onnx.model import proto_hash

        return proto_hash(self.content)


def import_model(
    model: torch.nn.Module | torch.export.ExportedProgram | onnx.ModelProto | str | Path,
    example_inputs: Any = None,
    *,
    dynamic: Mapping[str, Any] | None = None,
    fold: bool = True,
) -> ImportedModel:
    """Read a model.

    ``model`` is a ``torch.nn.Module``, a ``torch.export.ExportedProgram``, an
    ``onnx.ModelProto``, or the path of an ``.onnx`` or ``.pt2`` file.

    ``example_inputs`` is what the model is called with: a tuple of positional arguments, or a
    mapping of keyword arguments. A module needs it; an ONNX model needs it only for inputs whose
    declared sizes are open and not dynamic. A plain Python number or None among them becomes a
    constant of the imported model; so does, for an ONNX model, a list of numbers for an input that
    sets a shape or an attribute (:mod:`burnish.compiler.importers.onnx.settings`).

    ``dynamic`` leaves sizes open: ``{"input_ids": {0: "batch", 1: "seq"}}``. One name is one
    size. For torch models ``torch.export.Dim`` objects, with limits, may stand for names, and
    what is said of an argument follows its nesting (:mod:`.pytorch.dynamic`).

    ``fold=False`` switches off the pre-pass over ONNX models that fixes sizes and folds constants
    with ONNX Runtime.

    Raises :class:`~burnish.compiler.errors.ImportModelError`, or its subclass
    :class:`~burnish.compiler.errors.UnsupportedOperatorError` with every unsupported operator.
    """
    loaded = load_model(model, example_inputs, dynamic=dynamic)
    return import_loaded(loaded, example_inputs, dynamic=dynamic, fold=fold)


def load_model(
    model: Any, example_inputs: Any = None, *, dynamic: Mapping[str, Any] | None = None
) -> LoadedModel:
    """Read a model as far as its content hash needs it; arguments as of :func:`import_model`."""
    read: Any = load_file(model) if isinstance(model, (str, os.PathLike)) else model
    kind = _kind(read)
    if kind == "onnx":
        return LoadedModel(read, kind, read)
    from burnish.compiler.importers.pytorch import trace

    program, names = trace(read, example_inputs, dynamic)
    return LoadedModel(program, kind, read, names)


def import_loaded(
    loaded: LoadedModel,
    example_inputs: Any = None,
    *,
    dynamic: Mapping[str, Any] | None = None,
    fold: bool = True,
) -> ImportedModel:
    """Translate what :func:`load_model` read, with the same arguments."""
    if loaded.kind == "torch":
        from burnish.compiler.importers.pytorch import import_program

        mod, signature = import_program(loaded.content, loaded.names, dynamic)
    else:
        from burnish.compiler.importers.onnx.model import import_onnx

        mod, signature = import_onnx(loaded.content, example_inputs, dynamic, fold=fold)
    return ImportedModel(mod, signature, loaded.hash, loaded.kind, loaded.source)


def _kind(model: Any) -> str:
    roots = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    if "torch" in roots:
        import torch

        if isinstance(model, torch.nn.Module | torch.export.ExportedProgram):
            return "torch"
    if type(model).__name__ == "ModelProto":
        return "onnx"
    raise ImportModelError(
        f"cannot import {type(model).__name__}: give a torch.nn.Module, a torch.export."
        "ExportedProgram, an onnx.ModelProto, or the path of an .onnx or .pt2 file"
    )


__all__ = ["ImportedModel", "LoadedModel", "import_loaded", "import_model", "load_model"]
