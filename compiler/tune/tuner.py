"""Tuning a lowered module: baseline, search, and a choice by measurement."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import tvm
from tvm import tirx
from tvm.s_tir.analysis import estimate_tir_flops

from burnish.compiler.config import TuneConfig
from burnish.compiler.errors import MeasureError, TuneError
from burnish.compiler.measure import MeasureService
from burnish.compiler.measure.timing import faster
from burnish.compiler.tune.bench import Bench, first_line
from burnish.compiler.tune.database import Kind, Record, TuneDatabase
from burnish.compiler.tune.plan import CHEAP, Clock, Progress, shares, spread_trials
from burnish.compiler.tune.report import TuneReport, TuneRow
from burnish.compiler.tune.search import (
    BATCH,
    Finish,
    Search,
    entry_module,
    from_trace,
    kernel_of,
)
from burnish.compiler.tune.state import TaskState, choice_of, fastest
from burnish.compiler.tune.tasks import Task, anonymous, copied, extract_tasks, task_key

GUESSES = {"baseline": 0.3, "trial": 0.3, "choice": 2.0}
"""Seconds a step of each phase takes, until the first are done."""

BASELINE_SHARE = 0.5
"""Of a time limit, at most, goes to timing the defaults."""

RESERVE, LEAST = 1.25, 0.5
"""A choice's usual seconds times this: kept free for it by the search; needed to begin it."""

CRUMBS = 4
"""A search begun in an earlier run is not taken up again for fewer trials."""

STALE = 3
"""Batches without a new candidate after which a space counts as exhausted."""

SEEDS = 16
"""Earlier candidates that evolution starts from, at most."""

FINALISTS = 2
ROUNDS = 7
CHOICE_S = 1.2
"""Rounds of the final choice, and the seconds after which no further one begins."""

Schedule = Callable[[tirx.PrimFunc], tirx.PrimFunc]
Alternatives = Callable[[tirx.PrimFunc], Sequence[tirx.PrimFunc]]


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
    run = _Run(config, bench, database, schedule, alternatives, finish, progress)
    tasks = extract_tasks(mod)
    states = run.baselines([task for task in tasks if not task.reason])
    run.spread(states)
    run.try_alternatives(states)
    run.search(states)
    run.choose(states)
    rows = [state.row() for state in states] + run.left_out
    rows += [TuneRow(t.name, t.count, None, note=t.reason) for t in tasks if t.reason]
    best = {state.task.key: state.best for state in states if state.best is not None}
    report = TuneReport(tuple(rows), time.monotonic() - start, sum(s.trials for s in states))
    return best, report


class _Run:
    """One run of the tuner: its phases, in order."""

    def __init__(
        self,
        config: TuneConfig,
        bench: Bench,
        database: TuneDatabase,
        schedule: Schedule,
        alternatives: Alternatives | None,
        finish: Finish | None,
        progress: Progress | None,
    ) -> None:
        self.config = config
        self.bench = bench
        self.database = database
        self.schedule = schedule
        self.alternatives = alternatives
        self.finish = finish
        self.clock = Clock(progress, GUESSES, bench.left)
        self.left_out: list[TuneRow] = []

    def baselines(self, tasks: list[Task]) -> list[TaskState]:
        """Time each default kernel, those with most to do first; largest share first out."""
        states, errors = [], []
        until = self.bench.left() * (1 - BASELINE_SHARE)
        self.clock.plan(baseline=len(tasks), trial=self.config.trials)
        for task in sorted(tasks, key=lambda t: -t.count * _work(t)):
            began = time.monotonic()
            if self.bench.left() < until:
                self.left_out.append(TuneRow(task.name, task.count, None, note="no time left"))
                continue
            default = self._default(task)
            secs, error = self._time(task, default, "default", math.inf)
            if secs is None:
                errors.append(f"{task.name}: {error}")
                note = f"the default could not be measured: {error}"
                self.left_out.append(TuneRow(task.name, task.count, None, note=note))
            else:
                states.append(TaskState(task, default, secs))
            self.clock.step("baseline", time.monotonic() - began, f"timed {task.name}")
        if errors and not states:
            raise TuneError(f"no kernel could be measured; {errors[0]}")
        return sorted(states, key=lambda s: -s.secs * s.task.count)

    def _default(self, task: Task) -> tirx.PrimFunc:
        try:
            return anonymous(self.schedule(copied(task.func)))
        except Exception as error:
            raise TuneError(
                f"the default schedule failed: {error}", op=task.name, shape=task.arguments
            ) from error

    def _time(
        self, task: Task, func: tirx.PrimFunc, kind: Kind, limit_ms: float
    ) -> tuple[float | None, str]:
        """Seconds of a kernel, from the database where it was timed before."""
        known = self.database.get(task.key, task_key(func))
        if known is None or (known.secs is None and kind == "default"):
            (found,) = self.bench.screen(task, [func], limit_ms)
            known = Record(task.key, task_key(func), kind, found.secs, found.error)
            if found.secs is not None or found.error:
                self.database.add(known)
        return known.secs, known.error

    def spread(self, states: list[TaskState]) -> None:
        """Give each task its trials, less those of earlier runs."""
        share = shares({s.task.key: s.secs * s.task.count for s in states})
        worth = {key: part for key, part in share.items() if part >= CHEAP}
        quotas = spread_trials(self.config.trials, worth)
        for state in states:
            state.quota = quotas.get(state.task.key, 0)
            if state.task.key not in worth:
                state.note = f"under {CHEAP:.1%} of the time"
            elif state.quota == 0:
                state.note = "too few trials for its share of the time"
            tried = [r for r in self.database.records(state.task.key) if r.kind != "default"]
            state.reused = min(len(tried), state.quota)
            state.exhausted = state.reused > 0 and state.left < CRUMBS
        self._plan(states)

    def _plan(self, states: list[TaskState]) -> None:
        self.clock.plan(
            baseline=0, trial=sum(s.left for s in states), choice=sum(s.quota > 0 for s in states)
        )

    def try_alternatives(self, states: list[TaskState]) -> None:
        """Time the ready kernels of each task that has trials."""
        if self.alternatives is None:
            return
        for state in states:
            if state.quota == 0 or self._time_is_up(states):
                continue
            ready = [anonymous(f) for f in self.alternatives(copied(state.task.func))]
            state.funcs.update({task_key(f): f for f in ready})
            known = [self.database.get(state.task.key, task_key(f)) for f in ready]
            new = [f for f, record in zip(ready, known, strict=True) if record is None]
            self._measure(states, state, [(f, task_key(f), None) for f in new[: state.left]])

    def search(self, states: list[TaskState]) -> None:
        """Batches for each task in turn, until its trials or the time are used up."""
        active = [state for state in states if state.left > 0]
        stale = dict.fromkeys((state.task.key for state in active), 0)
        while active:
            for state in tuple(active):
                if self._time_is_up(states):
                    return
                began = time.monotonic()
                if state.search is None:
                    state.search = self._search(state)
                found = state.search.propose()
                known = {f.kernel: self.database.get(state.task.key, f.kernel) for f in found}
                fresh = [f for f in found if known[f.kernel] is None]
                new = fresh[: min(state.left, self._affordable(states))]
                state.funcs.update({f.kernel: f.func for f in found})
                stale[state.task.key] = 0 if new else stale[state.task.key] + 1
                self._measure(states, state, [(f.func, f.kernel, f.trace) for f in new], began)
                if len(new) == len(fresh):
                    records = [self.database.get(state.task.key, f.kernel) for f in found]
                    state.search.tell([None if r is None else r.secs for r in records])
                if not found or stale[state.task.key] >= STALE:
                    state.exhausted = True
                if state.left == 0:
                    active.remove(state)
                    state.search = None

    def _search(self, state: TaskState) -> Search:
        seen = []
        for record in self.database.records(state.task.key)[:SEEDS]:
            if record.trace is None or record.secs is None:
                continue
            try:
                from_trace(state.task, record.trace)
            except ValueError as error:
                self.database.add(replace(record, secs=None, error=str(error)))
                continue
            seen.append(record)
        seed = (self.config.seed * 1_000_003 + state.task.key) % (2**31 - 2) + 1
        return Search(
            state.task,
            self.bench.target,
            trials=state.left,
            seed=seed,
            seen=seen,
            finish=self.finish,
        )

    def _measure(
        self,
        states: list[TaskState],
        state: TaskState,
        candidates: Sequence[tuple[tirx.PrimFunc, int, Sequence[object] | None]],
        began: float | None = None,
    ) -> None:
        """Screen candidates and record them; their trace is None where they came ready."""
        began = time.monotonic() if began is None else began
        for at in range(0, len(candidates), BATCH):
            batch = candidates[at : at + BATCH]
            answers = self.bench.screen(
                state.task, [func for func, _, _ in batch], state.secs * 1e3
            )
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
            self.database.add(*known)
            state.trials += len(known)
            self._plan(states)
            now = time.monotonic()
            self.clock.step("trial", now - began, f"tried {state.task.name}", steps=len(batch))
            self._plan(states)
            began = now

    def _time_is_up(self, states: list[TaskState]) -> bool:
        return self._affordable(states) < 1

    def _affordable(self, states: list[TaskState]) -> int:
        """Trials that fit into the time left before the choices must begin."""
        if self.bench.left() == math.inf:
            return BATCH
        contested = sum(
            bool(fastest(self.database.records(s.task.key), s.secs)) for s in states if s.quota
        )
        spare = self.bench.left() - RESERVE * self.clock.cost["choice"] * contested
        return min(BATCH, int(spare / max(self.clock.cost["trial"], 1e-3)))

    def choose(self, states: list[TaskState]) -> None:
        """Beside each default, time the best candidates again, and keep what is better."""
        self.clock.plan(trial=0)
        for state in states:
            if state.quota == 0:
                continue
            if self.bench.left() < LEAST * self.clock.cost["choice"]:
                state.note = "no time left for the choice"
                continue
            began = time.monotonic()
            records = self.database.records(state.task.key)
            finalists = self._finalists(state, fastest(records, state.secs))
            if finalists:
                self._choose(state, finalists)
            else:
                tried = [r for r in records if r.kind != "default" and r.secs is not None]
                state.tuned_ms = tried[0].secs * 1e3 if tried and tried[0].secs else None
                state.note = "no candidate looked faster" if tried else "no candidate could be run"
            self.clock.step("choice", time.monotonic() - began, f"decided {state.task.name}")

    def _finalists(
        self, state: TaskState, records: list[Record]
    ) -> list[tuple[Record, tirx.PrimFunc]]:
        found: list[tuple[Record, tirx.PrimFunc]] = []
        for record in records:
            func = state.funcs.get(record.kernel)
            if func is None and record.trace is not None:
                try:
                    func = kernel_of(from_trace(state.task, record.trace), self.finish)
                except ValueError as error:
                    self.database.add(replace(record, secs=None, error=str(error)))
            if func is not None:
                found.append((record, func))
            if len(found) == FINALISTS:
                break
        return found

    def _choose(self, state: TaskState, finalists: list[tuple[Record, tirx.PrimFunc]]) -> None:
        task = state.task
        names = [f"candidate {index + 1}" for index in range(len(finalists))]
        funcs = dict(zip(names, (func for _, func in finalists), strict=True))
        try:
            timings = self.bench.side_by_side(
                task,
                {"default": state.default, **funcs},
                rounds=ROUNDS,
                budget_s=min(CHOICE_S, self.bench.left()),
            )
            state.default_ms = timings["default"].p50
            ranked = sorted(
                zip(names, finalists, strict=True), key=lambda item: timings[item[0]].p50
            )
            state.tuned_ms = timings[ranked[0][0]].p50
            state.note = "not faster beyond the noise"
            for name, (record, func) in ranked:
                if faster(timings[name], timings["default"]) is not True:
                    continue
                wrong = self.bench.disagreement(task, state.default, func)
                if wrong:
                    state.note = wrong
                    self.database.add(replace(record, secs=None, error=wrong))
                    continue
                state.tuned_ms = timings[name].p50
                state.chosen, state.note = choice_of(record.kind), ""
                state.best = func.with_attr("tirx.is_scheduled", True)
                return
        except MeasureError as error:
            state.note = f"the choice failed: {first_line(error)}"
            for name, (record, _) in zip(names, finalists, strict=True):
                if repr(name) in error.message:
                    self.database.add(replace(record, secs=None, error=first_line(error)))


def _work(task: Task) -> float:
    """Operations and elements of a call: an order of magnitude, to know what to time first."""
    elements = sum(math.prod(shape) for shape, _ in task.arguments)
    try:
        return float(estimate_tir_flops(entry_module(task.func))) + elements
    except Exception:  # noqa: BLE001 - the analysis refuses kernels it cannot count
        return float(elements)
