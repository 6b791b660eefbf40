"""How a pipeline was cut, and how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from burnish.compiler.pipelines.plan import Plan
from burnish.compiler.pipelines.timeline import Schedule


@dataclass(frozen=True)
class StageRow:
    """A stage: what was expected of it, and the median that a micro-batch took."""

    device: str
    operators: int
    weight_bytes: int
    sent_bytes: int
    predicted_ms: float
    measured_ms: float | None


@dataclass(frozen=True)
class PipelineReport:
    """The last call or stream of a pipeline.

    ``rate`` is micro-batches a second from the first start to the last end, ``bubble`` the share
    of the stages' time without work; both None where nothing ran.
    """

    name: str
    engine: str
    stages: tuple[StageRow, ...]
    rows: int
    micro_batches: int
    why: str
    costs: str
    batches: int
    done: int
    seconds: float
    rate: float | None
    bubble: float | None
    restarts: int
    frames: int

    @classmethod
    def of(
        cls,
        plan: Plan,
        engine: str,
        measured: Schedule,
        batches: int,
        restarts: int,
        frames: int,
    ) -> PipelineReport:
        took: list[list[float]] = [[] for _ in plan.stages]
        for span in measured.spans:
            took[span.stage].append(1e3 * (span.end - span.start))
        rows = tuple(
            StageRow(
                stage.device.name,
                stage.operators,
                stage.weight_bytes,
                stage.sent_bytes,
                1e3 * stage.seconds,
                _median(ms),
            )
            for stage, ms in zip(plan.stages, took, strict=True)
        )
        done = measured.micro_batches
        return cls(
            name=plan.name,
            engine=engine,
            stages=rows,
            rows=plan.rows,
            micro_batches=plan.micro_batches,
            why=plan.why,
            costs=plan.costs,
            batches=batches,
            done=done,
            seconds=measured.seconds,
            rate=done / measured.seconds if done else None,
            bubble=measured.bubble if done else None,
            restarts=restarts,
            frames=frames,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def _median(values: Sequence[float]) -> float | None:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else None
