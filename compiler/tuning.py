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
from burnish.compiler.stages import Optimized
from burnish.compiler.tune import Progress, tune_module
from burnish.compiler.waterfall import Row
from burnish.targets.cpu.schedule import alternatives, schedule
from burnish.targets.cpu.vector_math import vectorized_math
from burnish.targets.target import CpuTarget

SECONDS_A_TRIAL = 1.0
"""Bound on the search: a trial takes about half of this, builds of large kernels included."""
LEAST_SECONDS = 15.0


def tuned_kernels(
    optimized: Optimized, config: CompileConfig, progress: Progress | None = None
) -> tuple[Mapping[int, tirx.PrimFunc], Row, dict[str, Any]]:
    """Kernels that measured faster than the default ones, the report's row, and all tasks.

    ``progress`` is told how far the search is; without one, a bar is drawn on stderr.
    With ``do_no_harm`` the whole model is timed with and without them, and they are dropped if
    it got slower.
    """
    settings = config.tune or TuneConfig()
    if settings.work_dir is None:
        settings = replace(settings, work_dir=cache_folder() / "tuning")
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
    return best, row, found.to_dict()


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
