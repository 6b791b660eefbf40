"""The second phase: candidates tried until the trials or the time are used up."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from tvm import tirx

from burnish.compiler.tune.database import Record
from burnish.compiler.tune.run import Run
from burnish.compiler.tune.search import BATCH, Search, from_trace
from burnish.compiler.tune.state import TaskState, fastest
from burnish.compiler.tune.tasks import anonymous, copied, task_key

RESERVE = 1.25
"""A choice's usual seconds times this are kept free for it."""

STALE = 3
"""Batches without a new candidate after which a space counts as exhausted."""

SEEDS = 16
"""Earlier candidates that evolution starts from, at most."""


def try_alternatives(run: Run, states: list[TaskState]) -> None:
    """Time the ready kernels of each task that has trials."""
    if run.alternatives is None:
        return
    for state in states:
        if state.quota == 0 or _time_is_up(run, states):
            continue
        ready = [anonymous(f) for f in run.alternatives(copied(state.task.func))]
        state.funcs.update({task_key(f): f for f in ready})
        known = [run.database.get(state.task.key, task_key(f)) for f in ready]
        new = [f for f, record in zip(ready, known, strict=True) if record is None]
        _measure(run, states, state, [(f, task_key(f), None) for f in new[: state.left]])


def search(run: Run, states: list[TaskState]) -> None:
    """Batches for each task in turn, until its trials or the time are used up."""
    active = [state for state in states if state.left > 0]
    stale = dict.fromkeys((state.task.key for state in active), 0)
    while active:
        for state in tuple(active):
            if _time_is_up(run, states):
                return
            began = time.monotonic()
            if state.search is None:
                state.search = _search(run, state)
            found = state.search.propose()
            known = {f.kernel: run.database.get(state.task.key, f.kernel) for f in found}
            fresh = [f for f in found if known[f.kernel] is None]
            new = fresh[: min(state.left, _affordable(run, states))]
            state.funcs.update({f.kernel: f.func for f in found})
            stale[state.task.key] = 0 if new else stale[state.task.key] + 1
            _measure(run, states, state, [(f.func, f.kernel, f.trace) for f in new], began)
            if len(new) == len(fresh):
                records = [run.database.get(state.task.key, f.kernel) for f in found]
                state.search.tell([None if r is None else r.secs for r in records])
            if not found or stale[state.task.key] >= STALE:
                state.exhausted = True
            if state.left == 0:
                active.remove(state)
                state.search = None


def _search(run: Run, state: TaskState) -> Search:
    seen = []
    for record in run.database.records(state.task.key)[:SEEDS]:
        if record.trace is None or record.secs is None:
            continue
        try:
            from_trace(state.task, record.trace)
        except ValueError as error:
            run.database.add(replace(record, secs=None, error=str(error)))
            continue
        seen.append(record)
    seed = (run.config.seed * 1_000_003 + state.task.key) % (2**31 - 2) + 1
    return Search(
        state.task,
        run.bench.target,
        trials=state.left,
        seed=seed,
        seen=seen,
        finish=run.finish,
    )


def _measure(
    run: Run,
    states: list[TaskState],
    state: TaskState,
    candidates: Sequence[tuple[tirx.PrimFunc, int, Sequence[object] | None]],
    began: float | None = None,
) -> None:
    """Screen candidates and record them; their trace is None where they came ready."""
    began = time.monotonic() if began is None else began
    for at in range(0, len(candidates), BATCH):
        batch = candidates[at : at + BATCH]
        jobs = [(state.task, func) for func, _, _ in batch]
        answers = run.bench.screen(jobs, state.secs * 1e3)
        known = [
            Record(
                state.task.key,
                kernel,
                "alternative" if trace is None else "trace",
                answer.secs,
                answer.error,
                trace,
            )
            for (_, kernel, trace), answer in zip(batch, answers, strict=True)
            if answer.secs is not None or answer.error
        ]
        run.database.add(*known)
        state.trials += len(known)
        run.count_left(states)
        now = time.monotonic()
        run.clock.step("trial", now - began, f"tried {state.task.name}", steps=len(batch))
        run.count_left(states)
        began = now


def _time_is_up(run: Run, states: list[TaskState]) -> bool:
    return _affordable(run, states) < 1


def _affordable(run: Run, states: list[TaskState]) -> int:
    """Trials that fit into the time left before the choices must begin."""
    if run.bench.left() == math.inf:
        return BATCH
    contested = sum(
        bool(fastest(run.database.records(s.task.key), s.secs)) for s in states if s.quota
    )
    spare = run.bench.left() - RESERVE * run.clock.cost["choice"] * contested
    return min(BATCH, int(spare / max(run.clock.cost["trial"], 1e-3)))
