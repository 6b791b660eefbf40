"""The last phase: each task's default and best candidates side by side, and one kept."""

from __future__ import annotations

import time
from dataclasses import replace

from tvm import tirx

from burnish.compiler.errors import MeasureError
from burnish.compiler.measure.timing import faster
from burnish.compiler.tune.bench import first_line
from burnish.compiler.tune.database import Record
from burnish.compiler.tune.run import Run
from burnish.compiler.tune.search import from_trace, kernel_of
from burnish.compiler.tune.state import TaskState, choice_of, fastest

LEAST = 0.5
"""A choice's usual seconds times this are needed to begin it."""

FINALISTS = 2
ROUNDS = 7
CHOICE_S = 1.2
"""Rounds of a choice, and the seconds after which no further one begins."""


def choose(run: Run, states: list[TaskState]) -> None:
    """Beside each default, time the best candidates again, and keep what is better."""
    run.clock.plan(trial=0)
    for state in states:
        if state.quota == 0:
            continue
        if run.bench.left() < LEAST * run.clock.cost["choice"]:
            state.note = "no time left"
            continue
        began = time.monotonic()
        records = run.database.records(state.task.key)
        finalists = _finalists(run, state, fastest(records, state.secs))
        if finalists:
            _choose(run, state, finalists)
        else:
            tried = [r for r in records if r.kind != "default" and r.secs is not None]
            state.tuned_ms = tried[0].secs * 1e3 if tried and tried[0].secs else None
            state.note = "no candidate looked faster" if tried else "no candidate could be run"
        run.clock.step("choice", time.monotonic() - began, f"decided {state.task.name}")


def _finalists(
    run: Run, state: TaskState, records: list[Record]
) -> list[tuple[Record, tirx.PrimFunc]]:
    found: list[tuple[Record, tirx.PrimFunc]] = []
    for record in records:
        func = state.funcs.get(record.kernel)
        if func is None and record.trace is not None:
            try:
                func = kernel_of(from_trace(state.task, record.trace), run.finish)
            except ValueError as error:
                run.database.add(replace(record, secs=None, error=str(error)))
        if func is not None:
            found.append((record, func))
        if len(found) == FINALISTS:
            break
    return found


def _choose(run: Run, state: TaskState, finalists: list[tuple[Record, tirx.PrimFunc]]) -> None:
    task = state.task
    names = [f"candidate {index + 1}" for index in range(len(finalists))]
    funcs = dict(zip(names, (func for _, func in finalists), strict=True))
    try:
        timings = run.bench.side_by_side(
            task,
            {"default": state.default, **funcs},
            rounds=ROUNDS,
            budget_s=min(CHOICE_S, run.bench.left()),
        )
        state.default_ms = timings["default"].p50
        ranked = sorted(zip(names, finalists, strict=True), key=lambda item: timings[item[0]].p50)
        state.tuned_ms = timings[ranked[0][0]].p50
        state.note = "not faster beyond the noise"
        for name, (record, func) in ranked:
            if faster(timings[name], timings["default"]) is not True:
                continue
            wrong = run.bench.disagreement(task, state.default, func)
            if wrong:
                state.note = wrong
                run.database.add(replace(record, secs=None, error=wrong))
                continue
            state.tuned_ms = timings[name].p50
            state.chosen, state.note = choice_of(record.kind), ""
            state.best = func.with_attr("tirx.is_scheduled", True)
            return
    except MeasureError as error:
        state.note = f"the choice failed: {first_line(error)}"
        for name, (record, _) in zip(names, finalists, strict=True):
            if repr(name) in error.message:
                run.database.add(replace(record, secs=None, error=first_line(error)))
