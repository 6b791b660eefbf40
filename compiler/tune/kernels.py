"""Candidate kernels as the measuring service runs them: built and called inside its worker.

What travels is IR as JSON. A candidate that crashes the code generator or itself, or never
ends, takes the worker with it and nothing else.
"""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from burnish.compiler.measure.runners import Bind, Runner
from burnish.compiler.tune.tasks import Spec

ENTRY = "main"
SCREEN_S = 0.02
"""Seconds of samples a candidate gets; one that is far too slow gets two calls."""

SAMPLE_S = 0.002
SLOW = 3.0
"""A candidate this many times slower than what it must beat is not timed any further."""

Kernel = Callable[..., Any]


@dataclass(eq=False)
class KernelBatch(Runner):
    """Kernels, each an IRModule as JSON with the function ``main``.

    What a call does is said by its inputs:

    ``()``                   -> the first kernel once (for taking turns)
    ``("screen", limit_ms)`` -> a list of ``{"secs": [..], "error": bytes}``, one a kernel
    ``("outputs", draw)``    -> a list of the outputs of each kernel, on random inputs

    ``arguments`` and ``written`` have an entry a kernel: its tensors, and how many of them, the
    last ones, are outputs.
    """

    modules: tuple[str, ...]
    target: str
    arguments: tuple[tuple[Spec, ...], ...]
    written: tuple[int, ...]
    runtime: ClassVar[str] = "tvm"
    imports: ClassVar[tuple[str, ...]] = ("tvm",)

    def identity(self) -> Hashable:
        return (self.modules, self.target, self.arguments, self.written)

    def prepare(self, threads: int) -> None:
        super().prepare(threads)
        # The service collects garbage at every step, 0.1 s with all that TVM imports; those
        # objects live as long as the process.
        gc.freeze()

    def open(self) -> Bind:
        with ThreadPoolExecutor(max(1, min(self.threads, len(self.modules)))) as pool:
            built = list(pool.map(self._build, self.modules))
        if len(built) == 1 and isinstance(built[0], str):
            raise ValueError(built[0])

        def bind(inputs: Sequence[Any]) -> Callable[[], Any]:
            verb, *rest = inputs or ("call",)
            if verb == "screen":
                return lambda: [
                    _screen(kernel, specs, *rest)
                    for kernel, specs in zip(built, self.arguments, strict=True)
                ]
            if verb == "outputs":
                return lambda: [
                    _outputs(kernel, specs, written, *rest)
                    for kernel, specs, written in zip(
                        built, self.arguments, self.written, strict=True
                    )
                ]
            tensors, kernel = random_tensors(self.arguments[0], 0), built[0]
            return lambda: kernel(*tensors)  # type: ignore[operator]

        return bind

    def _build(self, text: str) -> Kernel | str:
        """The kernel, or the last line of why it could not be built."""
        import tvm

        from burnish.targets.cpu.lowering import PIPELINE

        try:
            target = tvm.target.Target(self.target)
            return tvm.compile(tvm.ir.load_json(text), target, tir_pipeline=PIPELINE)[ENTRY]
        except Exception as error:  # noqa: BLE001 - a search makes kernels of every kind
            return "does not build: " + last_line(error)


def last_line(error: BaseException) -> str:
    """The last line of an error's text that says something, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def _outputs(
    kernel: Kernel | str, arguments: tuple[Spec, ...], written: int, draw: int
) -> list[np.ndarray]:
    """Outputs of a call; they start as NaN, or as the largest integer, to show gaps."""
    import tvm

    if isinstance(kernel, str):
        raise ValueError(kernel)
    inputs = random_tensors(arguments, draw)[: len(arguments) - written]
    outputs = [tvm.runtime.tensor(_unwritten(*spec)) for spec in arguments[-written:]]
    kernel(*inputs, *outputs)
    return [output.numpy() for output in outputs]


def _screen(kernel: Kernel | str, arguments: tuple[Spec, ...], limit_ms: float) -> dict[str, Any]:
    """Seconds of a call, some samples; the first call is not one of them."""
    if isinstance(kernel, str):
        return _screened([], kernel)
    try:
        tensors = random_tensors(arguments, 0)
        first = _timed(kernel, tensors, 1)
        if first * 1e3 > SLOW * limit_ms:
            return _screened([_timed(kernel, tensors, 1)])
        inner = max(1, round(SAMPLE_S / max(first, 1e-7)))
        samples, start = [_timed(kernel, tensors, inner)], time.perf_counter()
        while len(samples) < 3 or time.perf_counter() - start < SCREEN_S:
            samples.append(_timed(kernel, tensors, inner))
    except Exception as error:  # noqa: BLE001 - a kernel checks its arguments by raising
        return _screened([], "does not run: " + last_line(error))
    return _screened(samples)


def _screened(secs: list[float], error: str = "") -> dict[str, Any]:
    """As the worker's channel carries it: arrays only."""
    return {"secs": np.array(secs), "error": np.frombuffer(error.encode(), np.uint8)}


def _timed(kernel: Kernel, tensors: Sequence[Any], inner: int) -> float:
    start = time.perf_counter()
    for _ in range(inner):
        kernel(*tensors)
    return (time.perf_counter() - start) / inner


@functools.lru_cache(maxsize=2)
def random_tensors(arguments: tuple[Spec, ...], draw: int) -> tuple[Any, ...]:
    """A tensor for each argument, equal for equal arguments in any worker.

    Floats are uniform, in -1 to 1 for an even ``draw``, in 0.1 to 1 for an odd one (so that
    logarithms and roots are checked too). 8-bit integers and 32-bit unsigned ones, which hold
    packed weights, take any value; other integers are 0 or 1, so that an index stays inside
    its table.
    """
    import tvm

    rng = np.random.default_rng(draw)
    low = 0.1 if draw % 2 else -1.0
    return tuple(tvm.runtime.tensor(_random(rng, low, *spec)) for spec in arguments)


def _random(rng: np.random.Generator, low: float, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype in ("int8", "uint8", "uint32"):
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, size=shape, dtype=dtype, endpoint=True)
    if dtype == "bool" or dtype.startswith(("int", "uint")):
        return rng.integers(0, 2, size=shape).astype(dtype)
    return rng.uniform(low, 1, size=shape).astype(_numpy_dtype(dtype))


def _unwritten(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if dtype == "bool":
        return np.zeros(shape, bool)
    if dtype.startswith(("int", "uint")):
        return np.full(shape, np.iinfo(dtype).max, dtype)
    return np.full(shape, np.nan, _numpy_dtype(dtype))


def _numpy_dtype(dtype: str) -> Any:
    import ml_dtypes

    return getattr(ml_dtypes, dtype) if dtype.startswith(("bfloat", "float8")) else dtype
