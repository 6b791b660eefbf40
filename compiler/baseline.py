"""What a compiled model is set beside: the source model in its own runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from burnish.compiler.errors import MeasureError
from burnish.compiler.importers.formats import FORMATS
from burnish.compiler.measure import EagerRunner, OnnxRuntimeRunner, Runner
from burnish.compiler.measure.file_runners import (
    KerasRunner,
    LiteRunner,
    RelayRunner,
    lite_interpreter,
)
from burnish.compiler.measure.runners import evaluating, onnx_feed, onnx_session

RELAY = "relay"
Function = Callable[..., Any]


class Baseline:
    """The runtime a model came from: its name, a runner to time, and its parameters' bytes."""

    def __init__(self, name: str, runner: Runner, params_bytes: int | None) -> None:
        self.name, self.runner, self.params_bytes = name, runner, params_bytes

    @contextmanager
    def callable(self, threads: int) -> Iterator[Function | None]:
        """The model as a function in this process; None where it can only run in its own."""
        yield None


class EagerBaseline(Baseline):
    """Eager PyTorch, in inference mode."""

    def __init__(self, model: Any) -> None:
        # A method of a module, a property of an exported program.
        state = model.state_dict() if callable(model.state_dict) else model.state_dict
        tensors = {t.data_ptr(): t for t in state.values()}
        params_bytes = sum(t.numel() * t.element_size() for t in tensors.values())
        super().__init__("eager", EagerRunner(model), params_bytes)
        self.model = model

    @contextmanager
    def callable(self, threads: int) -> Iterator[Function]:
        import torch

        exported = isinstance(self.model, torch.export.ExportedProgram)
        module = self.model.module() if exported else self.model

        def run(*inputs: Any) -> Any:
            with torch.inference_mode():
                return module(*(v if v is None else torch.as_tensor(v) for v in inputs))

        if exported:
            yield run
            return
        with evaluating(module):
            yield run


class OnnxBaseline(Baseline):
    """ONNX Runtime on the CPU."""

    def __init__(self, model: Any) -> None:
        super().__init__("onnxruntime", OnnxRuntimeRunner(model), _initializer_bytes(model))
        self.model = model

    @contextmanager
    def callable(self, threads: int) -> Iterator[Function]:
        model = self.model
        if not isinstance(model, bytes | str | Path):
            model = model.SerializeToString()
        session = onnx_session(str(model) if isinstance(model, Path) else model, threads)
        names = [value.name for value in session.get_inputs()]
        yield lambda *inputs: tuple(session.run(None, onnx_feed(names, inputs)))


def find_baseline(model: Any) -> Baseline:
    """The baseline of a model: the runtime that it is from.

    ``model`` is a module, an exported program, an ``onnx.ModelProto``, a model's file (``.onnx``,
    ``.pt2``, ``.keras``, ``.tflite``, a Relay module), or a :class:`Runner` of any other runtime.
    MeasureError for anything else.
    """
    import torch

    if isinstance(model, Runner):
        return Baseline(model.runtime, model, None)
    if isinstance(model, torch.nn.Module | torch.export.ExportedProgram):
        return EagerBaseline(model)
    if getattr(model, "kind", None) == RELAY:
        return _relay(model)
    if hasattr(model, "keep_alive") and hasattr(model, "path"):  # a file that is read elsewhere
        model = model.path
    if isinstance(model, str | Path):
        return _of_file(Path(model))
    if hasattr(model, "graph") and hasattr(model, "SerializeToString"):
        return OnnxBaseline(model)
    raise MeasureError(
        f"a {type(model).__name__} is no baseline: expected a torch module, an exported program, "
        "an ONNX model, a path to one, or a Runner"
    )


def _of_file(path: Path) -> Baseline:
    suffix = path.suffix.lower()
    relay = FORMATS[RELAY].suffixes
    known = (".onnx", ".pt2", ".keras", ".tflite", *relay)
    if suffix not in known:
        raise MeasureError(
            f"{path} is no baseline: expected a file of {', '.join(known)}; the runtime of a "
            f"{suffix or 'folder'} is not run here, so compare with a Runner of it"
        )
    if not path.is_file():
        raise MeasureError(f"the baseline {path} does not exist")
    if suffix == ".pt2":
        return EagerBaseline(_load_pt2(path))
    if suffix == ".onnx":
        return OnnxBaseline(path)
    if suffix == ".keras":
        return Baseline("keras", KerasRunner(str(path.absolute())), None)
    if suffix == ".tflite":
        lite_interpreter()
        return Baseline("litert", LiteRunner(str(path.absolute())), None)
    return _relay(path)


def _relay(model: Any) -> Baseline:
    return Baseline("burnish, as read", RelayRunner(model), None)


def _load_pt2(path: Path) -> Any:
    from burnish.compiler.importers.program_file import load_program

    return load_program(path)


def _initializer_bytes(model: Any) -> int:
    import onnx

    if isinstance(model, str | Path):
        model = onnx.load(str(model), load_external_data=False)
    sizes = (
        (math.prod(tensor.dims), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
        for tensor in model.graph.initializer
    )
    return sum(count * size for count, size in sizes)
