"""What runs where and when, as a list of steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Step:
    """One thing that one device or link does, from ``start`` to ``end`` in seconds.

    ``where`` is a device (``cpu``) or a link (``cpu -> cuda:0``). ``batch`` is the micro-batch in
    a pipeline, else 0; ``bytes`` is what a transfer moves.
    """

    kind: Literal["compute", "transfer"]
    where: str
    label: str
    start: float
    end: float
    batch: int = 0
    bytes: int = 0

    @property
    def seconds(self) -> float:
        return self.end - self.start


def link_name(source: str, target: str) -> str:
    """How a link is named in :attr:`Step.where`."""
    return f"{source} -> {target}"


def busy_seconds(steps: Iterable[Step]) -> dict[str, float]:
    """Seconds in which each device and link has something to do."""
    found: dict[str, float] = {}
    for step in steps:
        found[step.where] = found.get(step.where, 0.0) + step.seconds
    return found
