"""Timing operators inside a worker: each alone, as a call of a model would run it.

In a model an operator finds its activations in the caches, left by the one before, and its
weights in memory, or in the last cache where all of the model fits there. So a run of calls takes
its weights from a ring of copies, as many bytes as the caches that must not hold them; all else
stays where it is.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from burnish.compiler.measure.runners import Bind, Runner, file_identity
from burnish.compiler.tune.kernels import random_tensors
from burnish.compiler.tune.tasks import Spec

SAMPLES = 7
FIRST = 3
"""Calls before it is known how long one takes: the first one compiles, on some devices."""
RUN_S = 4e-3
"""Seconds of one sample at the least: it is a run of calls."""
LONG_S = 16e-3
"""Seconds of one sample that takes only some of the copies, the next one those that follow."""
MOST_CALLS = 2000
MOST_COPIES = 256
"""A weight of less than a 256th of a cache costs little to fetch, wherever it lies."""


@dataclass(eq=False)
class OperatorRunner(Runner):
    """Kernels of one library, timed by what ``inputs`` say: ``(first, last)`` of ``symbols``.

    A call gives, for each, ``[rings, samples]`` seconds of one call; a ring of ``rings`` is the
    bytes that its weights go around in. ``kind`` is ``cpu`` or a device of TVM.
    """

    library: str
    kind: str
    symbols: tuple[str, ...]
    arguments: tuple[tuple[Spec, ...], ...]
    weights: tuple[tuple[int, ...], ...]
    rings: tuple[int, ...]
    runtime: ClassVar[str] = "tvm"
    imports: ClassVar[tuple[str, ...]] = ("tvm",)

    def identity(self) -> Hashable:
        return (file_identity(self.library), self.symbols, self.rings)

    def open(self) -> Bind:
        import tvm

        from burnish.compiler import environment

        environment.set_threads()
        if self.kind == "opencl":
            from burnish.targets.opencl import runtime

            runtime.ensure()
        library = tvm.runtime.load_module(self.library)
        device = tvm.device(self.kind, 0)
        if self.kind == "cpu":
            from burnish.runtime import threads

            threads.adopt(library)(self.threads)
        return lambda inputs: lambda: self._time(library, device, range(*map(int, inputs)))

    def _time(self, library: Any, device: Any, places: Sequence[int]) -> list[np.ndarray]:
        return [
            np.array([self._ring(library, device, place, size) for size in self.rings])
            for place in places
        ]

    def _ring(self, library: Any, device: Any, place: int, size: int) -> list[float]:
        specs, weights = self.arguments[place], self.weights[place]
        kernel = library.get_function(self.symbols[place], query_imports=True)
        own = [value.copyto(device) for value in random_tensors(specs, 1)]
        held = sum(_bytes(specs[at]) for at in weights)
        copies = min(MOST_COPIES, max(2, math.ceil(size / held))) if held else 1
        calls = [tuple(own)]
        for _ in range(copies - 1):
            calls.append(
                tuple(v.copyto(device) if at in weights else v for at, v in enumerate(own))
            )
        run = self._replayed if self.kind == "cpu" else _looped
        alone, done = run(library, kernel, calls[:1]), device.sync
        once = [_timed(alone, done, 1) for _ in range(FIRST)][-1]
        parts = _parts(calls, once)
        if len(parts) == 1:
            whole = run(library, kernel, calls)
            ring = max(_timed(whole, done, 1), 1e-7)
            rounds = min(math.ceil(RUN_S / ring), MOST_CALLS // len(calls) + 1)
            parts = [calls * rounds]
        each = [(run(library, kernel, part), len(part)) for part in parts]
        taken = itertools.islice(itertools.cycle(each), SAMPLES)
        return [_timed(go, done, count) for go, count in taken]

    def _replayed(self, library: Any, kernel: Any, calls: Sequence[Any]) -> Callable[[], object]:
        """As a model with known shapes runs them: without a virtual machine, from C."""
        from burnish.runtime.replay import REPLAY, Call, Replay

        function = library.get_function(REPLAY, query_imports=True)
        replay = Replay(function, [Call(kernel, arguments) for arguments in calls], (), ())
        return lambda: replay((), ())


def _parts(calls: Sequence[Any], once: float) -> list[Sequence[Any]]:
    """The calls of each sample: all of the ring, or runs of it where one sample of all is long."""
    count = max(1, math.ceil(LONG_S / max(once, 1e-9)))
    if count >= len(calls):
        return [calls]
    around = itertools.cycle(calls)
    return [list(itertools.islice(around, count)) for _ in range(SAMPLES)]


def _looped(_library: Any, kernel: Any, calls: Sequence[Any]) -> Callable[[], object]:
    def run() -> None:
        for arguments in calls:
            kernel(*arguments)

    return run


def _timed(go: Callable[[], object], done: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    go()
    done()
    return (time.perf_counter() - start) / count


def _bytes(spec: Spec) -> int:
    import tvm

    shape, dtype = spec
    return math.prod(shape) * int(tvm.DataType(dtype).itemsize)
