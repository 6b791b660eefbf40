"""Tuning a lowered module: baseline, search, and a choice by measurement."""

from __future__ import annotations

import math
import time

import tvm
from tvm import tirx

from burnish.compiler.config import TuneConfig
from burnish.compiler.errors import TuneError
from burnish.compiler.measure import MeasureService
from burnish.compiler.tune.baseline import spread, time_defaults
from burnish.compiler.tune.bench import Bench
from burnish.compiler.tune.choose import choose
from burnish.compiler.tune.database import TuneDatabase
from burnish.compiler.tune.explore import search, try_alternatives
from burnish.compiler.tune.plan import Clock, Progress
from burnish.compiler.tune.report import TuneReport, TuneRow
from burnish.compiler.tune.run import Alternatives, Run, Schedule
from burnish.compiler.tune.search import Finish
from burnish.compiler.tune.tasks import extract_tasks

GUESSES = {"baseline": 0.3, "trial": 0.3, "choice": 2.0}
"""Seconds a step of each phase takes, until the first are done."""


def tune_module(
    mod: tvm.ir.IRModule,
    target: tvm.target.Target,
    config: TuneConfig,
    *,
    schedule: Schedule,
    measure: MeasureService,
    alternatives: Alternatives | None = None,
    finish: Finish | None = None,
    progress: Progress | None = None,
    time_limit_s: float | None = None,
) -> tuple[dict[int, tirx.PrimFunc], TuneReport]:
    """Kernels faster than the default ones, by :func:`task_key`, and what was done.

    ``mod`` is lowered and fused, not scheduled: kernels called by ``R.call_tir``. ``schedule``
    gives the default kernel, ``alternatives`` further ready kernels, which are tried before
    MetaSchedule's; ``finish`` is applied to what MetaSchedule makes. A kernel is in the result
    only where, beside the default in one process, it was faster beyond the noise and its
    outputs agree.

    ``config.trials`` counts candidates in all; what ``config.work_dir`` knows from earlier runs
    counts too and is not tried again. ``time_limit_s`` ends the search early, so that the
    choices still fit. An interrupt keeps every candidate timed before.

    Raises TuneError: the target is not a CPU, the database cannot be written, ``schedule``
    failed, or no kernel at all could be measured.
    """
    if target.kind.name != "llvm":
        raise TuneError(
            f"tuning times kernels on this CPU; it cannot for target {target.kind.name}"
        )
    if "num-cores" not in target.attrs:
        target = tvm.target.Target({**target.export(), "num-cores": measure.threads})
    start = time.monotonic()
    deadline = math.inf if time_limit_s is None else start + time_limit_s
    database = TuneDatabase(config.work_dir, target, measure.threads)
    bench = Bench(measure, target, deadline)
    clock = Clock(progress, GUESSES, bench.left)
    run = Run(config, bench, database, clock, schedule, alternatives, finish)
    tasks = extract_tasks(mod)
    states = time_defaults(run, [task for task in tasks if not task.reason])
    spread(run, states)
    try_alternatives(run, states)
    search(run, states)
    choose(run, states)
    rows = [state.row() for state in states] + run.left_out
    rows += [TuneRow(t.name, t.count, None, note=t.reason) for t in tasks if t.reason]
    best = {state.task.key: state.best for state in states if state.best is not None}
    report = TuneReport(tuple(rows), time.monotonic() - start, sum(s.trials for s in states))
    return best, report
