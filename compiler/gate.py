"""Do no harm: a pass is kept only if what it costs is within what it was allowed.

1. Each judged pass is built before and after, and both are timed side by side, in turns, in a
   process of their own.
2. A pass that made the model slower, beyond the noise of the measurement, is undone; pruning by
   itself promises size only and is kept.
3. A pass whose accuracy fell by more than its ``max_drop`` is undone; so is a lower precision
   that costs more than ``COSINE_DROP`` of the outputs' cosine with those of the imported model.
4. Errors are of the example inputs, against the imported model.

Nothing is built or timed unless a weight pass, a pass of the user's own or tuning was asked for,
nor where the recipe says what an earlier compilation found (:mod:`burnish.compiler.resolved`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import tvm
from tvm import tirx

from burnish.compiler import artifact
from burnish.compiler.build import build_library
from burnish.compiler.compiled import Compiled
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import TargetError
from burnish.compiler.measure.runners import ArtifactRunner
from burnish.compiler.measure.service import MeasureService
from burnish.compiler.measure.timing import Timing, faster
from burnish.compiler.parity import parity
from burnish.compiler.signature import Signature
from burnish.compiler.stages import Imported, Source
from burnish.compiler.tensors import aligned
from burnish.compiler.waterfall import Reading, Report, Row
from burnish.passes.params import get_params
from burnish.targets.choose import Target

BUDGET_S = 4.0
"""Seconds of timing one judged pass may take, building apart."""
COSINE_DROP = 0.001
"""What a lower precision may cost."""
DEFAULT = CompileConfig()


@dataclass(frozen=True)
class Variant:
    """One form of the model: built, saved, and what is known of it."""

    compiled: Compiled
    path: Path
    error: Mapping[str, float] | None = None
    accuracy: float | None = None


class Variants:
    """Builds forms of one model and times two of them side by side.

    The first one built is the reference of all errors. A context manager: it owns a process.
    """

    def __init__(
        self, signature: Signature, source: Source, target: Target, config: CompileConfig
    ) -> None:
        self.signature, self.source = signature, source
        self.target, self.config = target, config
        self._folder = tempfile.TemporaryDirectory(prefix="burnish-gate-")
        self._service: MeasureService | None = None
        self._count = 0
        self._reference: Any = None

    def __enter__(self) -> Variants:
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

    def build(
        self, fused: tvm.IRModule, best: Mapping[int, tirx.PrimFunc] | None = None
    ) -> Variant:
        """Build, save and run a fused module."""
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        built = build_library(
            fused, self.target, folder, opt_level=self.config.opt_level, best=best
        )
        values = get_params(fused)
        compiled = Compiled(
            built.path,
            {name: aligned(values[name].numpy()) for name in built.weights},
            self.signature,
            self.target,
            self.config,
            Report(),
            self.source,
            "",
            kernels=built.kernels,
            memories=built.memories,
            one_set=built.one_set,
        )
        path = artifact.save(compiled, folder / "variant.burnish")
        outputs = compiled(*self.source.example_inputs)
        error = None
        if self._reference is None:
            self._reference = outputs
        else:
            found = parity(outputs, self._reference)
            error = {"max_abs": found.max_abs, "rel": found.rel, "cosine": found.cosine}
        evaluate = self.config.evaluator()
        accuracy = None if evaluate is None else float(evaluate(compiled))
        return Variant(compiled, path, error, accuracy)

    def time(self, before: Variant, after: Variant) -> dict[str, Timing]:
        """Timings of ``before`` and ``after``, taken in turns."""
        if self._service is None:
            self._service = MeasureService(self.target.threads)
        return self._service.take_turns(
            {"before": ArtifactRunner(before.path), "after": ArtifactRunner(after.path)},
            self.source.example_inputs,
            budget_s=BUDGET_S,
            share_process=True,
            retries=1,
        )


class Gate:
    """Judges the passes of one compilation; a context manager, since it owns a process."""

    def __init__(self, imported: Imported, target: Target, config: CompileConfig) -> None:
        self.lower: Callable[[tvm.IRModule], tvm.IRModule] = lambda mod: mod
        self.config = config
        self.active = bool(
            config.do_no_harm
            and config.resolved is None
            and imported.source.example_inputs
            and (
                config.prune
                or config.quantize
                or config.passes
                or config.precision != DEFAULT.precision
            )
        )
        why = target.why_not_here() if self.active else ""
        if why:
            raise TargetError(
                f"do_no_harm runs the model for {target.name!r} on this machine, but {why}: "
                "say do_no_harm=False",
                stage="optimize",
            )
        self._variants = Variants(imported.signature, imported.source, target, config)
        self._known: list[tuple[tvm.IRModule, Variant]] = []

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._variants.__exit__(kind, error, trace)

    def start(self, mod: tvm.IRModule) -> None:
        """Take the imported module as the reference of all errors."""
        if self.active:
            self._variant(mod)

    def judge(
        self, before: tvm.IRModule, after: tvm.IRModule, row: Row, kind: str, place: int
    ) -> tuple[tvm.IRModule, Row]:
        """The module to go on with, and ``row`` with what was measured.

        ``kind`` is the phase of a standard pass, or ``user``; ``place`` that of the row in the
        report.
        """
        if self.config.resolved is not None:
            found = self.config.resolved.judgement(place, row.name)
            if found is None:
                return after, row
            return (before if found.status == "undone" else after), found.applied_to(row)
        if not self.active or before.same_as(after) or row.status == "no change":
            return after, row
        old, new = self._variant(before), self._variant(after)
        row = judged(row, kind, old, new, self._variants.time(old, new), self._limit(kind))
        return (before if row.status == "undone" else after), row

    def _limit(self, kind: str) -> float | None:
        if kind == "quantize" and self.config.quantize is not None:
            return self.config.quantize.max_drop
        return None

    def _variant(self, mod: tvm.IRModule) -> Variant:
        for known, variant in self._known:
            if known.same_as(mod):
                return variant
        variant = self._variants.build(self.lower(mod))
        self._known.append((mod, variant))
        return variant


def judged(
    row: Row,
    kind: str,
    old: Variant,
    new: Variant,
    timings: Mapping[str, Timing],
    limit: float | None = None,
) -> Row:
    """``row`` with both readings, and ``undone`` where the rules say so."""
    verdict = _verdict(kind, old, new, timings, limit)
    note = "; ".join(filter(None, (row.note, verdict or _PROMISES.get(kind, ""))))
    return replace(
        row,
        before=_with(row.before, old, timings["before"]),
        after=_with(row.after, new, timings["after"]),
        status="undone" if verdict else row.status,
        note=note,
    )


_PROMISES = {"prune": "promises size only"}


def _with(reading: Reading, variant: Variant, timing: Timing) -> Reading:
    return replace(reading, ms=timing.p50, error=variant.error, accuracy=variant.accuracy)


def _cosine(variant: Variant) -> float:
    """With the imported model, which is its own reference."""
    return 1.0 if variant.error is None else variant.error["cosine"]


def _verdict(
    kind: str, old: Variant, new: Variant, timings: Mapping[str, Timing], limit: float | None
) -> str:
    """Why the pass is undone, or nothing."""
    if limit is not None and old.accuracy is not None and new.accuracy is not None:
        drop = old.accuracy - new.accuracy
        if drop > limit:
            return f"accuracy fell by {drop:.4g}, the limit is {limit:.4g}"
    if kind == "precision" and not _cosine(new) >= _cosine(old) - COSINE_DROP:
        return f"cosine of the outputs fell to {_cosine(new):.5f}, the limit is {COSINE_DROP} less"
    judged_by_time = kind in ("quantize", "precision", "user", "tune")
    if judged_by_time and faster(timings["before"], timings["after"]):
        ratio = timings["after"].p50 / timings["before"].p50
        return f"{ratio:.2f} times as slow as without it"
    return ""
