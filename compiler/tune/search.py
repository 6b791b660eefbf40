"""The search for schedules of one task: MetaSchedule's space and evolution, our own loop.

MetaSchedule's task scheduler has neither a time limit nor a way to stop between batches, and
its builders and runners start processes that import TVM for every batch. Here its search
strategy is asked for candidates and told their times, and the rest is ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import Schedule, Trace
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule import _ffi_api

from burnish.compiler.tune.database import Record
from burnish.compiler.tune.kernels import ENTRY
from burnish.compiler.tune.tasks import Task, anonymous, copied, task_key

BATCH = 8
POPULATION = 16
GENERATIONS = 1
VECTOR = 16
"""Lanes at most. Wider ones build for seconds, and no CPU has them."""

UNROLL = (0, 16, 64)
"""MetaSchedule's own list goes on to 512, which builds for seconds and has not won."""

JOBS_PER_CORE = 16
FAILED_S = 1e10


Finish = Callable[[tirx.PrimFunc], tirx.PrimFunc]
"""What is done to every kernel after its loops are scheduled."""


@dataclass(frozen=True)
class Found:
    """A candidate: its finished function without a name, the key of that, its trace as JSON."""

    func: tirx.PrimFunc
    kernel: int
    trace: Sequence[Any]


def entry_module(func: tirx.PrimFunc) -> tvm.ir.IRModule:
    """The module that is built and searched: a copy of the function alone, as ``main``."""
    named = copied(func).with_attr("global_symbol", ENTRY).with_attr("tirx.noalias", True)
    return tvm.IRModule({ENTRY: named})


def trace_json(schedule: Schedule) -> Sequence[Any]:
    """The schedule's trace as plain data."""

    def number(value: Any) -> Any:
        if isinstance(value, tirx.IntImm | tirx.FloatImm):
            return value.value
        raise TypeError(f"a trace holds a {type(value).__name__}")

    return json.loads(json.dumps(schedule.trace.as_json(), default=number))


def from_trace(task: Task, trace: Sequence[Any]) -> Schedule:
    """The schedule of a recorded trace; ValueError where it does not fit the task."""
    schedule = Schedule(entry_module(task.func))
    try:
        Trace.apply_json_to_schedule(trace, schedule)
    except Exception as error:
        raise ValueError(f"a recorded schedule does not fit the kernel {task.name}") from error
    return schedule


def kernel_of(schedule: Schedule, finish: Finish | None) -> tirx.PrimFunc:
    """The scheduled function, finished, without a name."""
    func = anonymous(schedule.mod[ENTRY])
    return func if finish is None else finish(func)


class Search:
    """Candidates for one task, in batches of at most ``BATCH``, evolved from what was timed.

    ``seen`` are earlier records; what they timed is where evolution starts. ``seed`` and the
    same answers give the same candidates.
    """

    def __init__(
        self,
        task: Task,
        target: tvm.target.Target,
        *,
        trials: int,
        seed: int,
        seen: Iterable[Record] = (),
        finish: Finish | None = None,
    ) -> None:
        mod = entry_module(task.func)
        strategy = ms.search_strategy.EvolutionarySearch(
            population_size=POPULATION,
            init_measured_ratio=0.5,
            init_min_unmeasured=POPULATION // 2,
            genetic_num_iters=GENERATIONS,
        )
        space = ms.space_generator.PostOrderApply(
            sch_rules=_rules(),
            # Not RewriteLayout: weights are packed where they are legalized.
            postprocs=[
                ms.postproc.DisallowDynamicLoop(),
                ms.postproc.RewriteParallelVectorizeUnroll(),
                ms.postproc.RewriteReductionBlock(),
            ],
            mutator_probs="llvm",
        )
        self.context = _context(mod, target, space, strategy, seed)
        self.target = target
        self.finish = finish
        self.records = ms.database.MemoryDatabase()
        self.workload = self.records.commit_workload(mod)
        for record in seen:
            if record.trace is not None and record.secs is not None:
                self._commit(from_trace(task, record.trace), record.secs)
        self.context.pre_tuning(
            # The strategy stops by itself at its number of trials; candidates that were
            # recorded before are proposed again and must not use it up.
            max_trials=4 * trials + 4 * BATCH,
            num_trials_per_iter=min(BATCH, trials),
            design_spaces=self.context.generate_design_space(),
            database=self.records,
            cost_model=ms.cost_model.RandomModel(seed=seed % 2**32),
        )
        self._asked: Sequence[Any] = ()

    def propose(self) -> list[Found]:
        """The next candidates; none when the space has no more."""
        self._asked = self.context.generate_measure_candidates() or ()
        found = []
        for candidate in self._asked:
            func = kernel_of(candidate.sch, self.finish)
            found.append(Found(func, task_key(func), trace_json(candidate.sch)))
        return found

    def tell(self, secs: Sequence[float | None]) -> None:
        """The seconds of each candidate proposed last; None where it failed."""
        for candidate, value in zip(self._asked, secs, strict=True):
            if value is not None:
                self._commit(candidate.sch, value)
        results = [
            ms.runner.RunnerResult([FAILED_S if value is None else value], None) for value in secs
        ]
        self.context.notify_runner_results(list(self._asked), results)

    def _commit(self, schedule: Schedule, secs: float) -> None:
        args = ms.arg_info.ArgInfo.from_entry_func(schedule.mod, remove_preproc=True)
        record = ms.database.TuningRecord(schedule.trace, self.workload, [secs], self.target, args)
        self.records.commit_tuning_record(record)


def _rules() -> list[Any]:
    """MetaSchedule's rules for CPUs, with fewer and narrower choices where builds take long."""
    rule = ms.schedule_rule
    unroll = rule.ParallelizeVectorizeUnroll(
        max_jobs_per_core=JOBS_PER_CORE,
        max_vectorize_extent=VECTOR,
        unroll_max_steps=list(UNROLL),
        unroll_explicit=True,
    )
    return [
        unroll if isinstance(found, rule.ParallelizeVectorizeUnroll) else found
        for found in rule.ScheduleRule.create("llvm")
    ]


def _context(
    mod: tvm.ir.IRModule, target: tvm.target.Target, space: Any, strategy: Any, seed: int
) -> ms.TuneContext:
    """A tuning context, silent, and without the tensor intrinsics.

    The Python constructor imports ``tvm.s_tir.tensor_intrin``, which parses some 250 functions
    for other devices (20 to 60 seconds), and logs through handlers of its own; one thread,
    since candidates depend on which of several threads comes first.
    """
    context = ms.TuneContext.__new__(ms.TuneContext)
    context.__init_handle_by_constructor__(
        _ffi_api.TuneContext, mod, target, space, strategy, ENTRY, 1, seed, _silent
    )
    _ffi_api.TuneContextInitialize(context)
    return context


def _silent(level: int, file: str, line: int, message: str) -> None:
    """MetaSchedule's log goes nowhere."""
