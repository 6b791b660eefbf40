"""When each stage worked on which micro-batch: measured, and as expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Span:
    """A stage at work on a micro-batch, in seconds."""

    stage: int
    micro_batch: int
    start: float
    end: float


@dataclass(frozen=True)
class Schedule:
    """Spans of one run, counted from the first one's start."""

    devices: tuple[str, ...]
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, devices: Sequence[str], spans: Iterable[Span]) -> Schedule:
        """From clock times; micro-batches numbered from 0."""
        found = sorted(spans, key=lambda span: (span.micro_batch, span.stage))
        zero = min((span.start for span in found), default=0.0)
        first = min((span.micro_batch for span in found), default=0)
        moved = [Span(s.stage, s.micro_batch - first, s.start - zero, s.end - zero) for s in found]
        return cls(tuple(devices), tuple(moved))

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        return max((span.end for span in self.spans), default=0.0)

    @property
    def micro_batches(self) -> int:
        return len({span.micro_batch for span in self.spans})

    def busy(self) -> list[float]:
        """Seconds of work of each stage."""
        return [
            sum(span.end - span.start for span in self.spans if span.stage == stage)
            for stage in range(len(self.devices))
        ]

    @property
    def bubble(self) -> float:
        """The share of the stages' time in which they had nothing to do, 0 to 1."""
        whole = self.seconds * len(self.devices)
        return 1 - sum(self.busy()) / whole if whole else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "devices": list(self.devices),
            "seconds": self.seconds,
            "bubble": self.bubble,
            "busy": self.busy(),
            "spans": [asdict(span) for span in self.spans],
        }


@dataclass(frozen=True)
class Timeline:
    """One run as ``measured``, and as ``predicted`` from the costs of the operators."""

    measured: Schedule
    predicted: Schedule

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"measured": self.measured.to_dict(), "predicted": self.predicted.to_dict()}

    def draw(self, path: str | Path) -> None:
        """Write a picture of both, PNG or SVG by the suffix of ``path``."""
        from burnish.compiler.pipelines.picture import draw_timeline

        draw_timeline(self, Path(path))


def predict_schedule(
    devices: Sequence[str], seconds: Sequence[float], micro_batches: int, frames: int
) -> Schedule:
    """What ``micro_batches`` take where each stage needs ``seconds`` for one.

    A stage does one at a time, in order; a micro-batch enters when one of the ``frames`` is free.
    """
    spans: list[Span] = []
    free = [0.0] * len(seconds)
    ends: list[float] = []
    for number in range(micro_batches):
        ready = ends[number - frames] if number >= frames else 0.0
        for stage, took in enumerate(seconds):
            start = max(ready, free[stage])
            ready = free[stage] = start + took
            spans.append(Span(stage, number, start, ready))
        ends.append(ready)
    return Schedule(tuple(devices), tuple(spans))
