"""Runtimes of model files besides ``.onnx`` and ``.pt2``: Keras's own, LiteRT, and for Relay, which
has none any more, Burnish's own build of the module as it was read."""

from __future__ import annotations

import importlib
import importlib.util
import operator
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from burnish.compiler.errors import MeasureError
from burnish.compiler.measure.runners import ArtifactRunner, Bind, Call, Runner, file_identity
from burnish.compiler.measure.values import array

LITE = (
    ("ai_edge_litert.interpreter", "Interpreter"),
    ("tflite_runtime.interpreter", "Interpreter"),
    ("tensorflow", "lite.Interpreter"),
)
"""Where TFLite's interpreter is, best first: modules, and its name in each."""
LITE_INSTALL = "pip install 'burnish[bench]' (ai-edge-litert)"


@dataclass(eq=False)
class KerasRunner(Runner):
    """A ``.keras`` file on Keras's own backend: ``$KERAS_BACKEND``, else TensorFlow where it is
    installed, else PyTorch. Safe mode stays on."""

    path: str
    runtime: ClassVar[str] = "keras"

    def identity(self) -> Hashable:
        return file_identity(self.path)

    def prepare(self, threads: int) -> None:
        self.threads = threads
        if not os.environ.get("KERAS_BACKEND"):
            tensorflow = importlib.util.find_spec("tensorflow") is not None
            os.environ["KERAS_BACKEND"] = "tensorflow" if tensorflow else "torch"
        if os.environ["KERAS_BACKEND"] == "tensorflow":
            tf = importlib.import_module("tensorflow")
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        import torch

        torch.set_num_threads(threads)
        _imported("keras", "Keras, the baseline of .keras files", "pip install 'burnish[keras]'")

    def open(self) -> Bind:
        import keras
        import torch

        model = keras.saving.load_model(self.path, compile=False, safe_mode=True)
        structure = getattr(model, "input", None) if getattr(model, "inputs", None) else None
        function = model
        if keras.backend.backend() == "tensorflow":
            function = importlib.import_module("tensorflow").function(model)

        def bind(inputs: Sequence[Any]) -> Call:
            given: Any = [keras.ops.convert_to_tensor(array(value)) for value in inputs]
            if isinstance(structure, Mapping):
                given = keras.tree.pack_sequence_as(structure, given)
            elif len(given) == 1:
                given = given[0]

            def call() -> Any:
                with torch.inference_mode():
                    return function(given, training=False)

            return call

        return bind


@dataclass(eq=False)
class LiteRunner(Runner):
    """A ``.tflite`` file, by the interpreter of LiteRT (TensorFlow Lite), its CPU delegate on."""

    path: str
    runtime: ClassVar[str] = "litert"

    def identity(self) -> Hashable:
        return file_identity(self.path)

    def prepare(self, threads: int) -> None:
        self.threads = threads
        lite_interpreter()

    def open(self) -> Bind:
        interpreter = lite_interpreter()(model_path=self.path, num_threads=self.threads)

        def bind(inputs: Sequence[Any]) -> Call:
            details = interpreter.get_input_details()
            if len(details) != len(inputs):
                names = [item["name"] for item in details]
                raise MeasureError(
                    f"the TFLite model takes {len(details)} inputs {names}, {len(inputs)} were "
                    "given"
                )
            values = [np.ascontiguousarray(array(value)) for value in inputs]
            for item, value in zip(details, values, strict=True):
                interpreter.resize_tensor_input(item["index"], value.shape)
            interpreter.allocate_tensors()
            places = [item["index"] for item in interpreter.get_output_details()]

            def call() -> Any:
                for item, value in zip(details, values, strict=True):
                    interpreter.set_tensor(item["index"], value)
                interpreter.invoke()
                return tuple(interpreter.get_tensor(place) for place in places)

            return call

        return bind


class RelayRunner(Runner):
    """A Relay module as it was read, built by Burnish with nothing asked for: no weight pass, no
    lower precision, no tuning. It shows what those cost and bring; of the reading it is no test."""

    runtime = "tvm"
    imports = ("tvm",)

    def __init__(self, model: Any) -> None:
        self.model = model

    def packings(self, folder: Path, inputs: Sequence[Any]) -> Iterator[Runner]:
        from burnish.compiler.driver import compile as compile_model

        path = folder / "as-read.burnish"
        compile_model(self.model, tuple(inputs), cache=False).save(path)
        runner = ArtifactRunner(path)
        runner.note = (
            "Relay has no runtime any more: this is Burnish's own build of the module as read, "
            "with no pass asked for"
        )
        yield runner


def lite_interpreter() -> Callable[..., Any]:
    """The class ``Interpreter``; MeasureError with the remedy where none is installed."""
    for module, name in LITE:
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            found: Callable[..., Any] = operator.attrgetter(name)(importlib.import_module(module))
            return found
    raise MeasureError(
        f"LiteRT, the baseline of .tflite files, is not installed: {LITE_INSTALL}; tensorflow has "
        "it too"
    )


def _imported(name: str, what: str, remedy: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MeasureError(f"{what}, is not installed: {remedy}") from error
