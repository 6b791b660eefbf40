"""Reading a model (PyTorch, ONNX, Keras, TFLite, Relay), an object or file -> named-weight IR."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tvm

from burnish.compiler.errors import BurnishError, ImportModelError
from burnish.compiler.importers.files import SUFFIXES, Params, check_no_params, load_file
from burnish.compiler.importers.keras_file import KerasFile, KerasModule, with_variable_names
from burnish.compiler.importers.model_file import ModelFile
from burnish.compiler.importers.survey import Survey, surveyed
from burnish.compiler.signature import Signature
from burnish.runtime import random_keys

if TYPE_CHECKING:
    import onnx
    import torch


@dataclass(frozen=True)
class ImportedModel:
    """A model as read, before any pass.

    ``mod`` keeps the convention of :mod:`burnish.passes.params`; ``main`` returns a tuple of the
    tensors in ``signature.outputs``. ``source_hash`` is the sha256 of the model's content,
    ``kind`` is ``"torch"``, ``"onnx"`` or another of
    :data:`~burnish.compiler.importers.formats.FORMATS`, and ``source`` the model that was given:
    the object, the loaded program of a ``.pt2`` file, or the path of any other.
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

    ``content`` is an ``ExportedProgram``, a ``ModelProto`` or a
    :class:`~burnish.compiler.importers.model_file.ModelFile`, ``names`` the arguments of a traced
    module, ``source`` the model that was given.
    """

    content: Any = field(repr=False)
    kind: str
    source: Any = field(repr=False)
    names: list[str] | None = None

    @functools.cached_property
    def hash(self) -> str:
        """sha256 of the content: the graph and every weight."""
        if isinstance(self.content, ModelFile):
            return self.content.digest
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
    params: Params = None,
) -> ImportedModel:
    """Read a model.

    ``model`` is a ``torch.nn.Module``, a ``torch.export.ExportedProgram``, an
    ``onnx.ModelProto``, a Keras model, or the path of an ``.onnx``, ``.pt2``, ``.keras`` or
    ``.tflite`` file, of a TensorFlow SavedModel's folder, or of a Relay module of TVM up to 0.19:
    ``.json`` (``tvm.ir.save_json``), ``.relay`` or ``.txt`` (its text), with its ``params`` given
    or beside it (:func:`~burnish.compiler.importers.files.load_file`). Files are read in a child
    process with limits (:mod:`burnish.compiler.importers.contained`); a ``.pt2`` file is read here
    after that (:mod:`burnish.compiler.importers.program_file`).

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
    loaded = load_model(model, example_inputs, dynamic=dynamic, params=params)
    return import_loaded(loaded, example_inputs, dynamic=dynamic, fold=fold)


def load_model(
    model: Any,
    example_inputs: Any = None,
    *,
    dynamic: Mapping[str, Any] | None = None,
    params: Params = None,
) -> LoadedModel:
    """Read a model as far as its content hash needs it; arguments as of :func:`import_model`."""
    if isinstance(model, (str, os.PathLike)):
        read: Any = load_file(model, params)
    else:
        check_no_params(params)
        read = model
    if _is_keras(read):
        from burnish.compiler.importers.keras_file import open_model

        read = open_model(read)
    if isinstance(read, ModelFile):
        return LoadedModel(read, read.kind, read.path if read.keep_alive is None else model)
    if isinstance(read, KerasFile):
        traced, arguments = read.trace(example_inputs, dynamic)
        return LoadedModel(traced, "torch", model, arguments)
    kind = _kind(read)
    if kind == "onnx":
        return LoadedModel(read, kind, read)
    from burnish.compiler.importers.pytorch import trace

    program, names = trace(read, example_inputs, dynamic)
    if isinstance(read, KerasModule):
        with_variable_names(program, read.model)
    return LoadedModel(program, kind, model, names)


def import_loaded(
    loaded: LoadedModel,
    example_inputs: Any = None,
    *,
    dynamic: Mapping[str, Any] | None = None,
    fold: bool = True,
) -> ImportedModel:
    """Translate what :func:`load_model` read, with the same arguments."""
    random_keys.register()
    if isinstance(loaded.content, ModelFile):
        mod, signature = loaded.content.convert(example_inputs, dynamic, fold=fold)
    elif loaded.kind == "torch":
        mod, signature = _translate(loaded, dynamic)
    else:
        from burnish.compiler.importers.onnx.model import import_onnx

        mod, signature = import_onnx(loaded.content, example_inputs, dynamic, fold=fold)
    return ImportedModel(mod, signature, loaded.hash, loaded.kind, loaded.source)


def _translate(
    loaded: LoadedModel, dynamic: Mapping[str, Any] | None
) -> tuple[tvm.IRModule, Signature]:
    """A program of torch; where it is a file's, whatever torch says of it is an error of ours."""
    from burnish.compiler.importers.pytorch import import_program

    try:
        return import_program(loaded.content, loaded.names, dynamic)
    except BurnishError:
        raise
    except Exception as error:
        if not isinstance(loaded.source, (str, os.PathLike)):
            raise
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ImportModelError(
            f"{loaded.source} cannot be translated; it may be damaged: "
            f"{type(error).__name__}: {said[0][:300]}"
        ) from error


def survey_model(
    model: Any,
    example_inputs: Any = None,
    *,
    dynamic: Mapping[str, Any] | None = None,
    fold: bool = True,
    params: Params = None,
) -> Survey:
    """What of a model can be imported; arguments as of :func:`import_model`.

    Unsupported operators are in the result, not raised. Raises
    :class:`~burnish.compiler.errors.ImportModelError` for a model that cannot be read at all.
    """
    loaded = load_model(model, example_inputs, dynamic=dynamic, params=params)
    if isinstance(loaded.content, ModelFile):
        return loaded.content.survey(example_inputs, dynamic, fold=fold)

    def attempt() -> object:
        return import_loaded(loaded, example_inputs, dynamic=dynamic, fold=fold)

    if loaded.kind == "torch":
        from burnish.compiler.importers.pytorch import survey as torch_survey

        return surveyed("torch", torch_survey.work_of(loaded.content), attempt)
    from burnish.compiler.importers.onnx import survey as onnx_survey

    return surveyed("onnx", onnx_survey.work_of(loaded.content, example_inputs), attempt)


def _roots(model: Any) -> set[str]:
    """The top-level packages that the model's class comes from."""
    return {base.__module__.partition(".")[0] for base in type(model).__mro__}


def _is_keras(model: Any) -> bool:
    return "keras" in _roots(model)


def _kind(model: Any) -> str:
    if "torch" in _roots(model):
        import torch

        if isinstance(model, torch.nn.Module | torch.export.ExportedProgram):
            return "torch"
    if type(model).__name__ == "ModelProto":
        return "onnx"
    raise ImportModelError(
        f"cannot import {type(model).__name__}: give a torch.nn.Module, a torch.export."
        "ExportedProgram, an onnx.ModelProto, a keras.Model, or the path of a model "
        f"({', '.join(SUFFIXES)}, a SavedModel's folder)"
    )


__all__ = [
    "ImportedModel",
    "LoadedModel",
    "Survey",
    "import_loaded",
    "import_model",
    "load_model",
    "survey_model",
]
