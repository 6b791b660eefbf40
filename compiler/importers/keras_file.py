"""Keras models and SavedModels: converted by Keras or TensorFlow in a process of their own.

Keras decides its backend when it is imported, so a file is not loaded here, where Keras may run
on another one or not be wanted at all. The process that does is :mod:`.keras_worker`; routes:

1. ``torch``: Keras on PyTorch, then torch.export. Where TensorFlow with tf2onnx is not installed,
   or ``$KERAS_BACKEND`` is ``torch``.
2. ``tensorflow``: Keras on TensorFlow, then its ONNX export.
3. ``saved_model``: TensorFlow and tf2onnx.

Safe mode stays on: a file with a Lambda layer, which is Python code, is refused. A model object
is read where it is when it runs on torch or TensorFlow; else it is saved and read as a file.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.contained import Limits
from burnish.compiler.importers.formats import Input
from burnish.compiler.importers.model_file import ModelFile

WORKER = "burnish.compiler.importers.keras_worker"
CONFIG_LIMIT = 64 * 2**20
LIGHT = "pip install 'burnish[keras]'"
FULL = "pip install 'burnish[tensorflow]'"


@dataclass(frozen=True)
class KerasFile:
    """A ``.keras`` file that goes through Keras on PyTorch."""

    path: Path
    keep_alive: Any = field(default=None, repr=False, compare=False)

    @property
    def inputs(self) -> list[Input]:
        """What the model takes, from the file's own description."""
        return _declared(_config(self.path))

    def trace(
        self, example_inputs: Any, dynamic: Mapping[str, Any] | None
    ) -> tuple[torch.export.ExportedProgram, list[str]]:
        """The exported program and the names of its arguments.

        Without examples the declared sizes are taken, 2 for a dynamic one.
        """
        if example_inputs is None:
            example_inputs = made_examples(self.inputs, dynamic or {})
        request = {"route": "torch", "examples": example_inputs, "dynamic": dynamic}
        with tempfile.TemporaryDirectory() as folder:
            names = _work(self.path, Path(folder), request)["names"]
            return torch.export.load(Path(folder, "model.pt2")), names


def open_keras(path: Path) -> ModelFile | KerasFile:
    """A ``.keras`` file by the route that this installation has."""
    if not zipfile.is_zipfile(path):
        raise ImportModelError(f"{path} is no .keras archive, or is truncated")
    if _route() == "torch":
        return KerasFile(path)
    return _converted(path, "tensorflow")


def open_saved_model(folder: Path) -> ModelFile:
    """A SavedModel's ``serving_default`` signature, as ONNX."""
    if not _has_tensorflow():
        raise ImportModelError(
            f"{folder} is a SavedModel, which TensorFlow reads: {FULL}; or save the Keras model as "
            ".keras, which needs no TensorFlow"
        )
    return _converted(folder, "saved_model")


def open_model(model: Any) -> torch.nn.Module | ModelFile | KerasFile:
    """A ``keras.Model`` object: as it is on torch, else exported or saved."""
    if isinstance(model, torch.nn.Module):
        return KerasModule(model)
    folder = tempfile.TemporaryDirectory(prefix="burnish-keras-")
    backend = getattr(sys.modules.get("keras.backend"), "backend", lambda: "")()
    if backend == "tensorflow" and _has_tensorflow():
        from burnish.compiler.importers.keras_worker import export_onnx

        target = Path(folder.name, "model.onnx")
        try:
            export_onnx(model, target)
        except Exception as error:
            raise ImportModelError(f"Keras does not export the model to ONNX: {error}") from error
        return ModelFile(target, "onnx", folder)
    saved = Path(folder.name, "model.keras")
    try:
        model.save(saved)
    except Exception as error:
        raise ImportModelError(f"Keras does not save the model: {error}") from error
    found = open_keras(saved)
    return KerasFile(saved, folder) if isinstance(found, KerasFile) else found


class KerasModule(torch.nn.Module):
    """A Keras model on the torch backend, whose forward takes one argument an input, by name."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        structure = getattr(model, "input", None) if getattr(model, "inputs", None) else None
        names = input_names(model)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])

        def forward(*args: Any, **kwargs: Any) -> Any:
            values = list(signature.bind(*args, **kwargs).arguments.values())
            if isinstance(structure, Mapping):
                import keras

                return self.model(keras.tree.pack_sequence_as(structure, values), training=False)
            given = values[0] if len(values) == 1 else values
            return self.model(given, training=False)

        forward.__signature__ = signature  # type: ignore[attr-defined]
        self.forward = forward


def with_variable_names(program: torch.export.ExportedProgram, model: Any) -> None:
    """Give weights the paths of their Keras variables, in place.

    torch.export finds them behind Keras's variables and not as parameters of the module, and calls
    them lifted tensors.
    """
    paths = {v.value.data_ptr(): v.path for v in model.variables if v.value.numel()}
    for spec in program.graph_signature.input_specs:
        tensor = program.constants.get(spec.target) if spec.target else None
        path = paths.get(tensor.data_ptr()) if isinstance(tensor, torch.Tensor) else None
        if spec.target and path is not None and path not in program.constants:
            program.constants[path] = program.constants.pop(spec.target)
            spec.target = path


def input_names(model: Any) -> list[str]:
    """The names of a Keras model's inputs, as Python identifiers."""
    declared = getattr(model, "inputs", None)
    if not declared:
        return ["x"]
    names = ["".join(c if c.isalnum() else "_" for c in item.name) for item in declared]
    unique = len(set(names)) == len(names) and all(name.isidentifier() for name in names)
    return names if unique else [f"input_{index}" for index in range(len(names))]


def made_examples(inputs: list[Input], dynamic: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Zeros of the declared sizes; an open one that is not dynamic is an error."""
    made = []
    for item in inputs:
        given = dynamic.get(item.name) or {}
        axes = dict(given.items() if isinstance(given, Mapping) else enumerate(given))
        shape = [2 if axes.get(axis) is not None else n for axis, n in enumerate(item.shape)]
        missing = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
        if missing:
            shown = ", ".join(str(n or "?") for n in item.shape)
            raise ImportModelError(
                f"the input {item.name!r} is declared as ({shown}): give example_inputs, or name "
                f"its open sizes, as dynamic={{{item.name!r}: {{{missing[0]}: 'batch'}}}}"
            )
        made.append(np.zeros([int(n) for n in shape], item.dtype))
    return tuple(made)


def _route() -> str:
    """``torch`` or ``tensorflow``."""
    chosen = os.environ.get("KERAS_BACKEND", "")
    if importlib.util.find_spec("keras") is None:
        raise ImportModelError(f"a .keras file is read by Keras: {LIGHT}")
    return "tensorflow" if _has_tensorflow() and chosen != "torch" else "torch"


def _has_tensorflow() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("tensorflow", "tf2onnx"))


def _converted(path: Path, route: str) -> ModelFile:
    folder = tempfile.TemporaryDirectory(prefix="burnish-keras-")
    _work(path, Path(folder.name), {"route": route})
    return ModelFile(Path(folder.name, "model.onnx"), "onnx", folder)


def _work(path: Path, folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Have the worker convert ``path`` into ``folder``; its reply."""
    import cloudpickle

    size = sum(f.stat().st_size for f in [path, *path.rglob("*")] if f.is_file())
    limits = Limits.of(size)
    ask = {**request, "path": str(path), "limits": [limits.seconds, limits.bytes]}
    (folder / "request").write_bytes(cloudpickle.dumps(ask))
    backend = "torch" if request["route"] == "torch" else "tensorflow"
    env = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", WORKER, str(folder)],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limits.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ImportModelError(f"{path} was not converted within {limits.seconds:.0f} s") from None
    reply = folder / "reply"
    if done.returncode != 0 or not reply.is_file():
        said = done.stderr.strip().splitlines()
        last = said[-1][:300] if said else "it said nothing"
        raise ImportModelError(f"{path}: the conversion ended with {done.returncode}: {last}")
    data: dict[str, Any] = json.loads(reply.read_text())
    if "error" in data:
        raise ImportModelError(data["error"])
    return data


def _config(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("config.json")
            if info.file_size > CONFIG_LIMIT:
                raise ImportModelError(f"{path}: config.json is larger than {CONFIG_LIMIT} bytes")
            config = json.loads(archive.read(info))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise ImportModelError(f"{path} is no .keras archive, or is damaged: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise ImportModelError(f"{path} is no .keras archive: its config.json has no config")
    return config["config"]


def _declared(config: Mapping[str, Any]) -> list[Input]:
    """The input layers, in the model's order where it has one."""
    found: dict[str, Input] = {}
    for layer in config.get("layers") or ():
        if layer.get("class_name") == "InputLayer":
            own = layer["config"]
            sizes = tuple("" if n is None else int(n) for n in own["batch_shape"])
            found[own["name"]] = Input(_identifier(own["name"]), sizes, str(own["dtype"]))
    order = config.get("input_layers") or list(found)
    flat = list(_names(order, found))
    return [found[name] for name in dict.fromkeys(flat)] or list(found.values())


def _names(order: Any, known: Mapping[str, Input]) -> Any:
    if isinstance(order, str) and order in known:
        yield order
    elif isinstance(order, Mapping):
        for item in order.values():
            yield from _names(item, known)
    elif isinstance(order, list):
        for item in order:
            yield from _names(item, known)


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
