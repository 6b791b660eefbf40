"""What a compiled model is set beside: the source model in its own runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from burnish.compiler.errors import MeasureError
from burnish.compiler.measure import EagerRunner, OnnxRuntimeRunner, Runner
from burnish.compiler.measure.runners import evaluating, onnx_feed, onnx_session

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
    """The baseline of a model: eager PyTorch, or ONNX Runtime for ONNX.

    ``model`` is a module, an exported program, an ``onnx.ModelProto``, a path to ``.onnx`` or
    ``.pt2``, or a :class:`Runner` of any other runtime. MeasureError for anything else.
    """
    import torch

    if isinstance(model, Runner):
        return Baseline(model.runtime, model, None)
    if isinstance(model, torch.nn.Module | torch.export.ExportedProgram):
        return EagerBaseline(model)
    if hasattr(model, "keep_alive") and hasattr(model, "path"):  # a file that is read elsewhere
        model = model.path
    if isinstance(model, str | Path):
        path = Path(model)
        if path.suffix not in {".onnx", ".pt2"}:
            raise MeasureError(
                f"{path} is no baseline: expected a .onnx or .pt2 file; the runtime of a "
                f"{path.suffix or 'folder'} is not run here, so compare with a Runner of it"
            )
        if not path.is_file():
            raise MeasureError(f"the baseline {path} does not exist")
        return OnnxBaseline(path) if path.suffix == ".onnx" else EagerBaseline(_load_pt2(path))
    if hasattr(model, "graph") and hasattr(model, "SerializeToString"):
        return OnnxBaseline(model)
    raise MeasureError(
        f"a {type(model).__name__} is no baseline: expected a torch module, an exported program, "
        "an ONNX model, a path to one, or a Runner"
    )


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
