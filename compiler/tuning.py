"""Tuning as a stage: the tuner's kernels, and what they bought the whole model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from tvm import tirx

from burnish.compiler.artifact import cache_folder
from burnish.compiler.config import CompileConfig, TuneConfig
from burnish.compiler.errors import TargetError, TuneError, wrap_errors
from burnish.compiler.gate import Variants, judged
from burnish.compiler.measure.service import MeasureService
from burnish.compiler.optimizer import reading
from burnish.compiler.progress import shown
from burnish.compiler.resolved import records_hash
from burnish.compiler.stages import Optimized
from burnish.compiler.tune import Progress, tune_module
from burnish.compiler.tune.database import Record, TuneDatabase
from burnish.compiler.tune.search import from_trace, kernel_of
from burnish.compiler.tune.tasks import (
    Task,
    anonymous,
    copied,
    extract_tasks,
    schedule_key,
    task_key,
)
from burnish.compiler.waterfall import Row
from burnish.targets.cpu.schedule import alternatives, schedule
from burnish.targets.cpu.vector_math import vectorized_math
from burnish.targets.target import CpuTarget

SECONDS_A_TRIAL = 1.0
"""Bound on the search: a trial takes about half of this, builds of large kernels included."""
LEAST_SECONDS = 15.0


def tuned_kernels(
    optimized: Optimized, config: CompileConfig, progress: Progress | None = None
) -> tuple[Mapping[int, tirx.PrimFunc], Row, dict[str, Any], str | None]:
    """Kernels that measured faster than the default ones, the report's row, all tasks, and the
    hash of the records that were taken.

    ``progress`` is told how far the search is; without one, a bar is drawn on stderr.
    With ``do_no_harm`` the whole model is timed with and without them, and they are dropped if
    it got slower.
    """
    settings = _settings(config)
    target = optimized.target
    if not isinstance(target, CpuTarget):
        raise TargetError(
            f"tuning is for CPUs; the target is {target.name!r}: leave tune out", stage="tune"
        )
    start = time.perf_counter()
    with (
        wrap_errors(TuneError),
        shown("tuning") if progress is None else nullcontext(progress) as tell,
        MeasureService(target.threads) as measure,
    ):
        faster, found = tune_module(
            optimized.mod,
            target.tvm(),
            settings,
            schedule=lambda func: schedule(func, target),
            measure=measure,
            alternatives=lambda func: alternatives(func, target),
            finish=vectorized_math,
            progress=tell,
            time_limit_s=max(LEAST_SECONDS, SECONDS_A_TRIAL * settings.trials),
        )
    best: Mapping[int, tirx.PrimFunc] = faster
    before = reading(optimized.mod)
    chosen = sum(1 for row in found.rows if row.chosen != "default")
    note = f"{found.trials} trials, {chosen} of {len(found.rows)} kernels replaced"
    row = Row(
        "TuneKernels",
        "tune",
        time.perf_counter() - start,
        before,
        before,
        "applied" if best else "no change",
        note,
        details={"tasks": found.to_dict()["rows"]},
    )
    if best and config.do_no_harm and optimized.source.example_inputs:
        best, row = _verified(optimized, config, best, row)
    kept = {task: schedule_key(func) for task, func in best.items()}
    database = _database(optimized, settings)
    records = records_hash([_record(database.get(*pair)) for pair in kept.items()])
    return best, row, found.to_dict(), records


def resolved_kernels(
    optimized: Optimized, config: CompileConfig
) -> tuple[Mapping[int, tirx.PrimFunc], Row, str | None]:
    """The kernels that the recipe's ``[resolved]`` part names, the row, and the records' hash.

    Raises :class:`TuneError` where one is neither among the rules' alternatives nor in the
    database.
    """
    assert config.resolved is not None
    wanted = {int(task): int(kernel) for task, kernel in config.resolved.kernels.items()}
    reading_ = reading(optimized.mod)
    row = Row("TuneKernels", "tune", 0.0, reading_, reading_, "no change")
    found = config.resolved.judgement(len(optimized.report.rows), row.name)
    row = row if found is None else found.applied_to(row)
    if not wanted:
        return {}, row, None
    target = optimized.target
    if not isinstance(target, CpuTarget):
        raise TuneError(f"tuned kernels are for CPUs; the target is {target.name!r}")
    database = _database(optimized, _settings(config))
    best: dict[int, tirx.PrimFunc] = {}
    records = []
    with wrap_errors(TuneError):
        for task in extract_tasks(optimized.mod):
            if task.key in wanted:
                record = database.get(task.key, wanted[task.key])
                func = _scheduled(task, wanted[task.key], record, target)
                if func is None:
                    raise TuneError(
                        f"the tuning database {database.folder} does not know the schedule that "
                        f"the recipe's [resolved] part names for {task.name}: say which one it was "
                        "resolved with as work_dir in its [tune] part, or remove [resolved]"
                    )
                best[task.key] = func.with_attr("tirx.is_scheduled", True)
                records.append(_record(record))
    return best, row, records_hash(records)


def _scheduled(
    task: Task, kernel: int, record: Record | None, target: CpuTarget
) -> tirx.PrimFunc | None:
    """The schedule of a task by its hash: one of the rules' own, or the record's."""
    for ready in alternatives(copied(task.func), target):
        if task_key(ready) == kernel:
            return anonymous(ready)
    if record is None or record.trace is None:
        return None
    func = kernel_of(from_trace(task, record.trace), vectorized_math)
    return func if task_key(func) == kernel else None


def _record(record: Record | None) -> dict[str, Any]:
    """What of a record decides what is compiled."""
    if record is None:
        return {}
    return {
        "task": record.task,
        "kernel": record.kernel,
        "kind": record.kind,
        "trace": record.trace,
    }


def _settings(config: CompileConfig) -> TuneConfig:
    settings = config.tune or TuneConfig()
    if settings.work_dir is not None:
        return settings
    return replace(settings, work_dir=cache_folder() / "tuning")


def _database(optimized: Optimized, settings: TuneConfig) -> TuneDatabase:
    threads = optimized.target.threads
    return TuneDatabase(settings.work_dir, optimized.target.tvm(), threads)


def _verified(
    optimized: Optimized,
    config: CompileConfig,
    best: Mapping[int, tirx.PrimFunc],
    row: Row,
) -> tuple[Mapping[int, tirx.PrimFunc], Row]:
    """Time the whole model with and without the tuned kernels, and keep what is no slower."""
    with Variants(optimized.signature, optimized.source, optimized.target, config) as variants:
        old, new = variants.build(optimized.mod), variants.build(optimized.mod, best)
        row = judged(row, "tune", old, new, variants.time(old, new))
    return ({} if row.status == "undone" else best), row
