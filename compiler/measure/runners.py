"""What can be timed: one class a runtime, each opened inside a worker process.

To add a peer: subclass :class:`Runner`, give it a ``runtime`` name, import the runtime in
``prepare``, load the model in ``open``. Parent-side state that cannot travel (a live module, a
protobuf) is turned into files by ``packings``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from burnish.compiler.errors import MeasureError
from burnish.compiler.measure.values import array

Call = Callable[[], Any]
Bind = Callable[[Sequence[Any]], Call]


class Runner:
    """A model, or a kernel, and the runtime that runs it.

    ``runtime`` names the thread pool that its process will own; ``note`` says how what runs
    differs from what was asked for, if it does. ``imports`` are modules that its process imports
    as it starts, so that several processes start at once.
    """

    runtime: ClassVar[str]
    imports: ClassVar[tuple[str, ...]] = ()
    note: str = ""

    def identity(self) -> Hashable:
        """Equal for two runners when a loaded one can serve for the other."""
        return id(self)

    def packings(self, folder: Path, inputs: Sequence[Any]) -> Iterator[Runner]:
        """Runners that can travel to a worker, best first; the first that opens is used."""
        yield self

    def prepare(self, threads: int) -> None:
        """In the worker, before memory is read: set the runtime's thread count."""
        self.threads = threads

    def open(self) -> Bind:
        """In the worker: load; the result takes inputs and returns a call without arguments.

        Converting the inputs to what the runtime takes happens there, outside the timed call.
        A runner whose ``packings`` are all of other classes has no ``open``.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be opened as it is")


def _torch(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """A module in eval mode meanwhile, each submodule's own mode restored after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def file_identity(path: str | os.PathLike[str]) -> Hashable:
    """The file as it is now: rewriting it gives another identity."""
    stat = os.stat(path)
    return (os.path.realpath(path), stat.st_mtime_ns, stat.st_size)


class EagerRunner(Runner):
    """A ``torch.nn.Module`` or ``torch.export.ExportedProgram``, run eagerly in eval mode.

    A module travels by cloudpickle; one that cannot travels as a ``torch.export`` program of
    the given inputs, and the note says so.
    """

    runtime = "torch"
    imports = ("torch",)

    def __init__(self, model: Any) -> None:
        self.model = model

    def packings(self, folder: Path, inputs: Sequence[Any]) -> Iterator[Runner]:
        import cloudpickle
        import torch

        path = folder / "model"
        if isinstance(self.model, torch.export.ExportedProgram):
            torch.export.save(self.model, f"{path}.pt2")
            yield TorchFile(f"{path}.pt2", exported=True)
            return
        try:
            torch.save(self.model, f"{path}.pt", pickle_module=cloudpickle)
        except Exception as error:  # noqa: BLE001 - pickling runs the model's own code
            reason = f"{type(error).__name__}: {error}"
        else:
            reason = "its process could not unpickle it"
            yield TorchFile(f"{path}.pt")
        tensors = tuple(
            value if torch.is_tensor(value) else torch.as_tensor(value) for value in inputs
        )
        with evaluating(self.model), torch.no_grad():
            program = torch.export.export(self.model, tensors)
        torch.export.save(program, f"{path}.pt2")
        short = reason.splitlines()[0][:160]
        yield TorchFile(
            f"{path}.pt2",
            exported=True,
            note=f"timed as an exported program, since the module cannot be pickled ({short})",
        )


@dataclass(eq=False)
class TorchFile(Runner):
    """A module saved with torch.save by this process's parent, or a ``.pt2`` program."""

    path: str
    exported: bool = False
    note: str = ""
    runtime: ClassVar[str] = "torch"

    def prepare(self, threads: int) -> None:
        _torch(threads)

    def module(self) -> Any:
        """The module in eval mode."""
        import torch

        if self.exported:
            return torch.export.load(self.path).module()
        return torch.load(self.path, weights_only=False).eval()

    def open(self) -> Bind:
        import torch

        module = self.module()

        def bind(inputs: Sequence[Any]) -> Call:
            tensors = [v if torch.is_tensor(v) or v is None else torch.as_tensor(v) for v in inputs]

            def call() -> Any:
                with torch.inference_mode():
                    return module(*tensors)

            return call

        return bind


class OnnxRuntimeRunner(Runner):
    """ONNX Runtime on the CPU: a path, serialized bytes, or an ``onnx.ModelProto``."""

    runtime = "onnxruntime"
    imports = ("onnxruntime",)

    def __init__(self, model: Any) -> None:
        self.model = model

    def identity(self) -> Hashable:
        return file_identity(self.model) if isinstance(self.model, str | Path) else id(self)

    def packings(self, folder: Path, inputs: Sequence[Any]) -> Iterator[Runner]:
        if isinstance(self.model, str | Path):
            path = Path(self.model).absolute()
        else:
            path = folder / "model.onnx"
            if isinstance(self.model, bytes):
                path.write_bytes(self.model)
            else:
                import onnx

                onnx.save(self.model, path, save_as_external_data=self.model.ByteSize() > 1 << 30)
        yield OnnxFile(str(path))


@dataclass(eq=False)
class OnnxFile(Runner):
    """An ``.onnx`` file, opened by ONNX Runtime."""

    path: str
    runtime: ClassVar[str] = "onnxruntime"

    def prepare(self, threads: int) -> None:
        self.threads = threads
        onnxruntime()

    def open(self) -> Bind:
        session = onnx_session(self.path, self.threads)
        names = [value.name for value in session.get_inputs()]

        def bind(inputs: Sequence[Any]) -> Call:
            feed = onnx_feed(names, inputs)
            return lambda: tuple(session.run(None, feed))

        return bind


def onnxruntime() -> Any:
    """The onnxruntime module, its telemetry off; MeasureError where it is not installed."""
    try:
        module = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MeasureError(
            "onnxruntime, the baseline of ONNX models, is not installed: install burnish[onnx]"
        ) from error
    module.disable_telemetry_events()
    return module


def onnx_session(model: str | bytes, threads: int) -> Any:
    """A CPU session with ``threads`` intra-op threads, ONNX Runtime's other defaults kept."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_feed(names: Sequence[str], inputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """Positional inputs by the names of a session; MeasureError when the counts differ."""
    if len(names) != len(inputs):
        raise MeasureError(
            f"the ONNX model takes {len(names)} inputs {list(names)}, {len(inputs)} were given"
        )
    return {n: np.ascontiguousarray(array(v)) for n, v in zip(names, inputs, strict=True)}


@dataclass(eq=False)
class ArtifactRunner(Runner):
    """A saved artifact, run with the service's threads whatever it was built for.

    ``loader(path)`` gives a callable of the inputs; burnish's own by default.
    """

    path: str | os.PathLike[str]
    loader: Callable[[Any], Callable[..., Any]] | None = None
    runtime: ClassVar[str] = "tvm"
    imports: ClassVar[tuple[str, ...]] = ("tvm",)

    def identity(self) -> Hashable:
        return file_identity(self.path)

    def prepare(self, threads: int) -> None:
        self.threads = threads
        _torch(threads)

    def open(self) -> Bind:
        load = self.loader
        if load is None:
            load = importlib.import_module("burnish.compiler.artifact").load
        compiled: Any = load(self.path)
        if hasattr(getattr(compiled, "target", None), "with_threads"):
            compiled.target = compiled.target.with_threads(self.threads)
        return lambda inputs: lambda: compiled(*inputs)


@dataclass(eq=False)
class KernelRunner(Runner):
    """Function ``symbol`` of a library exported by TVM, on random tensors.

    ``arguments`` are (shape, dtype) of each, outputs included: floats uniform in -1 to 1,
    integers 0 or 1, so that an index stays inside its table. The inputs given are not used.
    """

    library: str | os.PathLike[str]
    symbol: str
    arguments: tuple[tuple[tuple[int, ...], str], ...]
    runtime: ClassVar[str] = "tvm"
    imports: ClassVar[tuple[str, ...]] = ("tvm",)

    def identity(self) -> Hashable:
        return (file_identity(self.library), self.symbol, self.arguments)

    def open(self) -> Bind:
        import tvm

        function = tvm.runtime.load_module(str(self.library))[self.symbol]
        rng = np.random.default_rng(0)
        tensors = [tvm.runtime.tensor(_random(rng, *spec)) for spec in self.arguments]
        return lambda inputs: lambda: function(*tensors)


def _random(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> np.ndarray:
    if dtype.startswith(("int", "uint")):
        return rng.integers(0, 2, size=shape).astype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, size=shape).astype(bool)
    import ml_dtypes

    kind = getattr(ml_dtypes, dtype) if dtype.startswith(("bfloat", "float8")) else dtype
    return rng.uniform(-1, 1, size=shape).astype(kind)
