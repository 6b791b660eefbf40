"""The part of a profile that runs in a worker process."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from burnish.compiler.measure.runners import ArtifactRunner, Bind, Call
from burnish.compiler.measure.turns import MIN_ROUNDS, TURN_S


@dataclass(eq=False)
class ProfileRunner(ArtifactRunner):
    """Calls a saved artifact in turns, as it is and with every kernel timed.

    The call gives the ``events`` of a call as JSON (name, arguments, weights of each), their times
    in nanoseconds ``stamps [runs, events, 2]``, ``whole [runs]``, milliseconds of calls as they
    are, and ``io_bytes`` of the inputs and outputs.
    """

    rounds: int = 15
    budget_s: float = 20.0
    runtime: ClassVar[str] = "tvm"
    imports: ClassVar[tuple[str, ...]] = ("tvm",)

    def open(self) -> Bind:
        compiled: Any = importlib.import_module("burnish.compiler.artifact").load(self.path)
        compiled.target = compiled.target.with_threads(self.threads)
        return lambda inputs: self._profile(compiled, inputs)

    def _profile(self, compiled: Any, inputs: Sequence[Any]) -> Call:
        from burnish.compiler.parity import leaves
        from burnish.compiler.profile.recorder import Recorder
        from burnish.compiler.tensors import InputSlot

        # This call gives the library, which the recorder loads again, its threads.
        results = [value for _, value in leaves(compiled(*inputs))]
        given = [np.asarray(leaf) for leaf in compiled.signature.flatten(inputs)]
        moved = sum(np.asarray(value).nbytes for value in (*given, *results))
        recorder = Recorder(compiled, [InputSlot().take(leaf) for leaf in given])

        def call() -> dict[str, Any]:
            stamps, whole = self._rounds(lambda: compiled(*inputs), recorder.take)
            events = [[e.name, e.arguments, e.weights, e.device, e.inner] for e in recorder.events]
            found = {"events": _packed(events), "stamps": np.stack(stamps), "whole": whole}
            return {**found, "io_bytes": moved}

        return call

    def _rounds(self, plain: Call, recorded: Call) -> tuple[list[np.ndarray], np.ndarray]:
        """Rounds of calls as they are, then recorded ones, each at least ``TURN_S`` long."""
        start = time.perf_counter()
        plain()
        once = time.perf_counter()
        plain()
        calls = max(1, math.ceil(TURN_S / max(time.perf_counter() - once, 1e-6)))
        stamps: list[np.ndarray] = []
        whole: list[float] = []
        for number in range(self.rounds):
            spent = time.perf_counter() - start
            if number >= MIN_ROUNDS and spent > self.budget_s:
                break
            for _ in range(calls):
                before = time.perf_counter()
                plain()
                whole.append(1e3 * (time.perf_counter() - before))
            recorded()
            stamps.extend(recorded() for _ in range(min(calls, 20)))
        return stamps, np.asarray(whole)


def _packed(value: Any) -> np.ndarray:
    """Plain data as bytes: only arrays travel back from a worker."""
    import json

    return np.frombuffer(json.dumps(value).encode(), np.uint8)
