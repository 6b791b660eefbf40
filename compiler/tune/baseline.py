"""The first phase: what the default kernels take, and which tasks get trials."""

from __future__ import annotations

import math
import time

from tvm import tirx
from tvm.s_tir.analysis import estimate_tir_flops

from burnish.compiler.errors import TuneError
from burnish.compiler.tune.bench import Job
from burnish.compiler.tune.database import Record
from burnish.compiler.tune.plan import CHEAP, shares, spread_trials
from burnish.compiler.tune.report import TuneRow
from burnish.compiler.tune.run import Run
from burnish.compiler.tune.search import BATCH, entry_module
from burnish.compiler.tune.state import TaskState
from burnish.compiler.tune.tasks import Task, anonymous, copied, task_key

BASELINE_SHARE = 0.5
"""Of a time limit, at most, goes to timing the defaults."""

CRUMBS = 4
"""A search begun in an earlier run is not taken up again for fewer trials."""


def time_defaults(run: Run, tasks: list[Task]) -> list[TaskState]:
    """Time each default kernel, those with most to do first; largest share first out."""
    until = run.bench.left() * (1 - BASELINE_SHARE)
    run.clock.plan(baseline=len(tasks), trial=run.config.trials)
    known: list[tuple[Task, tirx.PrimFunc, float | None, str]] = []
    unknown: list[Job] = []
    for task in sorted(tasks, key=lambda t: -t.count * _work(t)):
        default = _default(run, task)
        record = run.database.get(task.key, task_key(default))
        if record is not None and record.secs is not None:
            known.append((task, default, record.secs, ""))
        else:
            unknown.append((task, default))
    for at in range(0, len(unknown), BATCH):
        batch = unknown[at : at + BATCH]
        if run.bench.left() < until:
            known += [(task, default, None, "") for task, default in batch]
            continue
        began = time.monotonic()
        answers = run.bench.screen(batch)
        known += [
            (task, default, answer.secs, answer.error)
            for (task, default), answer in zip(batch, answers, strict=True)
        ]
        run.database.add(
            *(
                Record(task.key, task_key(default), "default", answer.secs, answer.error)
                for (task, default), answer in zip(batch, answers, strict=True)
                if answer.secs is not None or answer.error
            )
        )
        names = ", ".join(task.name for task, _ in batch)
        run.clock.step("baseline", time.monotonic() - began, f"timed {names}", steps=len(batch))
    errors = [f"{task.name}: {error}" for task, _, _, error in known if error]
    states = [TaskState(task, f, secs) for task, f, secs, _ in known if secs is not None]
    if errors and not states:
        raise TuneError(f"no kernel could be measured; {errors[0]}")
    for task, _, secs, error in known:
        if secs is None:
            note = f"the default could not be measured: {error}" if error else "no time left"
            run.left_out.append(TuneRow(task.name, task.count, None, note=note))
    return sorted(states, key=lambda s: -s.secs * s.task.count)


def _default(run: Run, task: Task) -> tirx.PrimFunc:
    try:
        return anonymous(run.schedule(copied(task.func)))
    except Exception as error:
        raise TuneError(
            f"the default schedule failed: {error}", op=task.name, shape=task.arguments
        ) from error


def spread(run: Run, states: list[TaskState]) -> None:
    """Give each task its trials, less those of earlier runs."""
    share = shares({s.task.key: s.secs * s.task.count for s in states})
    worth = {key: part for key, part in share.items() if part >= CHEAP}
    quotas = spread_trials(run.config.trials, worth)
    for state in states:
        state.quota = quotas.get(state.task.key, 0)
        if state.task.key not in worth:
            state.note = f"under {CHEAP:.1%} of the time"
        elif state.quota == 0:
            state.note = "too few trials for its share of the time"
        tried = [r for r in run.database.records(state.task.key) if r.kind != "default"]
        state.reused = min(len(tried), state.quota)
        state.exhausted = state.reused > 0 and state.left < CRUMBS
    run.count_left(states)


def _work(task: Task) -> float:
    """Operations and elements of a call: an order of magnitude, to know what to time first."""
    elements = sum(math.prod(shape) for shape, _ in task.arguments)
    try:
        return float(estimate_tir_flops(entry_module(task.func))) + elements
    except Exception:  # noqa: BLE001 - the analysis refuses kernels it cannot count
        return float(elements)
