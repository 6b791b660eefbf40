"""The measuring service, asked about kernels."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import tirx

from burnish.compiler.errors import MeasureError
from burnish.compiler.measure import MeasureService, Timing
from burnish.compiler.tune.kernels import KernelBatch, last_line
from burnish.compiler.tune.search import entry_module
from burnish.compiler.tune.tasks import Task

KERNEL_S = 10.0
"""Seconds a candidate may take to build and be timed, or it is ended."""

MORE_S = 1.0
"""Seconds added for each further one of a batch."""

LAST_S = 3.0
"""Seconds the last question before a deadline gets at least."""

TOGETHER = "the candidates"
DRAWS = (0, 1)
FLOAT_LIMIT = {"float64": 1e-4, "float32": 1e-4, "float16": 1e-2}
LOW_PRECISION_LIMIT = 5e-2


Job = tuple[Task, tirx.PrimFunc]
"""A kernel and the task it is for."""


@dataclass(frozen=True)
class Screened:
    """Best seconds of a call in a short look; None where it failed, and why."""

    secs: float | None
    error: str = ""


@dataclass
class Bench:
    """Times and compares kernels in the service's worker, until ``deadline`` (monotonic)."""

    measure: MeasureService
    target: tvm.target.Target
    deadline: float = math.inf

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def screen(self, jobs: Sequence[Job], limit_ms: float = math.inf) -> list[Screened]:
        """A short look at each kernel; those far slower than ``limit_ms`` get fewer calls.

        They are built together. Where one of them ends the worker, each is tried alone, so that
        only the one that does it fails.
        """
        try:
            found = self._ask(jobs, "screen", limit_ms)
        except MeasureError as error:
            if len(jobs) == 1:
                return [Screened(None, first_line(error))]
            return [self._alone(job, limit_ms) for job in jobs]
        return [
            Screened(float(min(each["secs"])))
            if len(each["secs"])
            else Screened(None, each["error"].tobytes().decode())
            for each in found
        ]

    def _alone(self, job: Job, limit_ms: float) -> Screened:
        return self.screen([job], limit_ms)[0] if self.left() >= LAST_S else Screened(None)

    def side_by_side(
        self, task: Task, funcs: Mapping[str, tirx.PrimFunc], *, rounds: int, budget_s: float
    ) -> dict[str, Timing]:
        """Timings in one worker, taking turns. MeasureError where one cannot be measured."""
        runners = {name: self._batch([(task, func)]) for name, func in funcs.items()}
        with self._limit(KERNEL_S * len(runners)):
            return self.measure.take_turns(
                runners, (), rounds=rounds, budget_s=budget_s, share_process=True, retries=1
            )

    def disagreement(self, task: Task, ours: tirx.PrimFunc, theirs: tirx.PrimFunc) -> str:
        """How the outputs of ``theirs`` differ from ours on random inputs; empty if they agree.

        Integers must be equal; floats within a share of the largest output: 1e-4, 1e-2 for
        float16, 5e-2 for what is narrower. MeasureError where one cannot be run.
        """
        for draw in DRAWS:
            ref, out = self._ask([(task, ours), (task, theirs)], "outputs", draw)
            for index, (expected, got) in enumerate(zip(ref, out, strict=True)):
                dtype = task.arguments[len(task.arguments) - task.outputs + index][1]
                found = difference(expected, got, dtype)
                if found:
                    return f"output {index} differs from the default's: {found}"
        return ""

    def _ask(self, jobs: Sequence[Job], *inputs: Any) -> Any:
        with self._limit(KERNEL_S + MORE_S * (len(jobs) - 1)):
            self.measure.open({TOGETHER: self._batch(jobs)}, (), share_process=True)
            return self.measure.outputs(TOGETHER, inputs)

    def _batch(self, jobs: Sequence[Job]) -> KernelBatch:
        return KernelBatch(
            tuple(tvm.ir.save_json(entry_module(func)) for _, func in jobs),
            str(self.target),
            tuple(task.arguments for task, _ in jobs),
            tuple(task.outputs for task, _ in jobs),
        )

    @contextmanager
    def _limit(self, seconds: float) -> Iterator[None]:
        kept = self.measure.timeout
        self.measure.timeout = min(kept, seconds, max(LAST_S, self.left()))
        try:
            yield
        finally:
            self.measure.timeout = kept


def difference(expected: np.ndarray, got: np.ndarray, dtype: str) -> str:
    """How an output differs by more than its dtype allows; empty if it does not."""
    if dtype == "bool" or dtype.startswith(("int", "uint")):
        wrong = int(np.count_nonzero(expected != got))
        return f"{wrong} of {expected.size} integers" if wrong else ""
    ref, out = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(ref)
    same = np.isfinite(out) == finite
    same[~finite] &= (ref == out)[~finite] | (np.isnan(ref) & np.isnan(out))[~finite]
    if not same.all():
        return f"{int(np.count_nonzero(~same))} of {ref.size} values are not finite alike"
    if not finite.any():
        return ""
    largest = float(np.abs(ref[finite]).max())
    worst = float(np.abs(ref[finite] - out[finite]).max())
    limit = FLOAT_LIMIT.get(dtype, LOW_PRECISION_LIMIT)
    if worst <= limit * largest:
        return ""
    return f"by {worst:.3g} where the largest is {largest:.3g} (limit {limit:g} of it)"


def first_line(error: MeasureError) -> str:
    """An error of the service, without the worker's output after it."""
    return error.message.splitlines()[0].strip()[:300] if error.message else last_line(error)
