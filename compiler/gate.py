"""Do no harm: a pass is kept only if what it costs is within what it was allowed.

1. Each judged pass is built before and after, and both are timed side by side, in turns, in a
   process of their own.
2. A pass that made the model slower, beyond the noise of the measurement, is undone; pruning by
   itself promises size only and is kept.
3. A pass whose accuracy fell by more than its ``max_drop`` is undone.
4. Errors are of the example inputs, against the imported model.

Nothing is built or timed unless a weight pass, a pass of the user's own or tuning was asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import tvm

from burnish.compiler import artifact
from burnish.compiler.build import build_library
from burnish.compiler.compiled import Compiled
from burnish.compiler.config import CompileConfig
from burnish.compiler.measure.runners import ArtifactRunner
from burnish.compiler.measure.service import MeasureService
from burnish.compiler.measure.timing import Timing, faster
from burnish.compiler.parity import parity
from burnish.compiler.stages import Imported
from burnish.compiler.tensors import aligned
from burnish.compiler.waterfall import Reading, Report, Row
from burnish.passes.params import get_params
from burnish.targets.target import CpuTarget

BUDGET_S = 4.0
"""Seconds of timing one judged pass may take, building apart."""


class Variant:
    """One form of the model: built, saved, and what is known of it."""

    def __init__(self, mod: tvm.IRModule, compiled: Compiled, path: Path) -> None:
        self.mod = mod
        self.compiled = compiled
        self.path = path
        self.ms: float | None = None
        self.error: dict[str, float] | None = None
        self.accuracy: float | None = None


class Gate:
    """Judges the passes of one compilation; a context manager, since it owns a process."""

    def __init__(self, imported: Imported, target: CpuTarget, config: CompileConfig) -> None:
        self.imported = imported
        self.target = target
        self.config = config
        self.lower: Callable[[tvm.IRModule], tvm.IRModule] = lambda mod: mod
        self.active = bool(
            config.do_no_harm
            and imported.source.example_inputs
            and (config.prune or config.quantize or config.passes)
        )
        self._folder = tempfile.TemporaryDirectory(prefix="burnish-gate-")
        self._service: MeasureService | None = None
        self._variants: list[Variant] = []
        self._reference: Any = None
        self._evaluate = config.evaluator() if self.active else None

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._service is not None:
            self._service.close()
        self._folder.cleanup()

    def start(self, mod: tvm.IRModule) -> None:
        """Take the imported module as the reference of all errors."""
        if self.active:
            self._variant(mod)

    def judge(
        self, before: tvm.IRModule, after: tvm.IRModule, row: Row, kind: str
    ) -> tuple[tvm.IRModule, Row]:
        """The module to go on with, and ``row`` with what was measured.

        ``kind`` is the phase of a standard pass, or ``user``.
        """
        if not self.active or row.status == "no change":
            return after, row
        old, new = self._variant(before), self._variant(after)
        timings = self._time(old, new)
        status, note = _verdict(kind, old, new, timings, self._limit(kind))
        row = replace(
            row,
            before=_with(row.before, old, timings["before"]),
            after=_with(row.after, new, timings["after"]),
            status=status if status == "undone" else row.status,
            note=note,
        )
        return (before if status == "undone" else after), row

    def _limit(self, kind: str) -> float | None:
        if kind == "quantize" and self.config.quantize is not None:
            return self.config.quantize.max_drop
        return None

    def _variant(self, mod: tvm.IRModule) -> Variant:
        for known in self._variants:
            if known.mod.same_as(mod):
                return known
        compiled = self._build(mod)
        path = Path(self._folder.name) / f"{len(self._variants)}.burnish"
        artifact.save(compiled, path)
        variant = Variant(mod, compiled, path)
        outputs = compiled(*self.imported.source.example_inputs)
        if self._reference is None:
            self._reference = outputs
        else:
            found = parity(outputs, self._reference)
            variant.error = {
                "max_abs": found.max_abs,
                "rel": found.rel,
                "cosine": found.cosine,
            }
        if self._evaluate is not None:
            variant.accuracy = float(self._evaluate(compiled))
        self._variants.append(variant)
        return variant

    def _build(self, mod: tvm.IRModule) -> Compiled:
        fused = self.lower(mod)
        folder = Path(self._folder.name) / f"build{len(self._variants)}"
        folder.mkdir()
        library, names = build_library(fused, self.target, folder, opt_level=self.config.opt_level)
        values = get_params(fused)
        return Compiled(
            library,
            {name: aligned(values[name].numpy()) for name in names},
            self.imported.signature,
            self.target,
            self.config,
            Report(),
            self.imported.source,
            "",
        )

    def _time(self, old: Variant, new: Variant) -> dict[str, Timing]:
        if self._service is None:
            self._service = MeasureService(self.target.threads)
        return self._service.take_turns(
            {"before": ArtifactRunner(old.path), "after": ArtifactRunner(new.path)},
            self.imported.source.example_inputs,
            budget_s=BUDGET_S,
            share_process=True,
            retries=1,
        )


def _with(reading: Reading, variant: Variant, timing: Timing) -> Reading:
    return replace(reading, ms=timing.p50, error=variant.error, accuracy=variant.accuracy)


def _verdict(
    kind: str,
    old: Variant,
    new: Variant,
    timings: dict[str, Timing],
    limit: float | None,
) -> tuple[Literal["applied", "undone"], str]:
    if limit is not None and old.accuracy is not None and new.accuracy is not None:
        drop = old.accuracy - new.accuracy
        if drop > limit:
            return "undone", f"accuracy fell by {drop:.4g}, the limit is {limit:.4g}"
    slower = faster(timings["before"], timings["after"])
    if slower and kind in ("quantize", "user"):
        ratio = timings["after"].p50 / timings["before"].p50
        return "undone", f"{ratio:.2f} times as slow as without it"
    return "applied", "promises size only" if kind == "prune" else ""
