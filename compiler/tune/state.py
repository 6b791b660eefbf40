"""One task while it is tuned."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm import tirx

from burnish.compiler.tune.database import Kind, Record
from burnish.compiler.tune.report import Choice, TuneRow
from burnish.compiler.tune.search import Search
from burnish.compiler.tune.tasks import Task

PROMISING = 0.97
"""Of the default's time in screening, at most, for a candidate to be worth a closer look."""


@dataclass
class TaskState:
    """What is known of a task: its default, what was tried, and what came of it.

    ``secs`` are of screening; ``funcs`` holds the candidates of this run, by their key.
    """

    task: Task
    default: tirx.PrimFunc
    secs: float
    quota: int = 0
    trials: int = 0
    reused: int = 0
    funcs: dict[int, tirx.PrimFunc] = field(default_factory=dict)
    search: Search | None = None
    exhausted: bool = False
    chosen: Choice = "default"
    best: tirx.PrimFunc | None = None
    default_ms: float | None = None
    tuned_ms: float | None = None
    note: str = ""

    @property
    def left(self) -> int:
        """Trials that the task may still have."""
        return 0 if self.exhausted else max(0, self.quota - self.reused - self.trials)

    def row(self) -> TuneRow:
        notes = [self.note, f"{self.reused} earlier trials reused" if self.reused else ""]
        return TuneRow(
            self.task.name,
            self.task.count,
            self.secs * 1e3 if self.default_ms is None else self.default_ms,
            self.tuned_ms,
            self.chosen,
            self.trials,
            "; ".join(note for note in notes if note),
        )


def choice_of(kind: Kind) -> Choice:
    """What a chosen candidate of this kind is called in the report."""
    return "alternative" if kind == "alternative" else "tuned"


def fastest(records: list[Record], secs: float) -> list[Record]:
    """The candidates among sorted records that look faster than ``secs``, by more than noise."""
    limit = secs * PROMISING
    return [r for r in records if r.kind != "default" and r.secs is not None and r.secs < limit]
