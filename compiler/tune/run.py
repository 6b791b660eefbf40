"""What one run of the tuner shares between its phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tvm import tirx

from burnish.compiler.config import TuneConfig
from burnish.compiler.tune.bench import Bench
from burnish.compiler.tune.database import TuneDatabase
from burnish.compiler.tune.plan import Clock
from burnish.compiler.tune.report import TuneRow
from burnish.compiler.tune.search import Finish
from burnish.compiler.tune.state import TaskState

Schedule = Callable[[tirx.PrimFunc], tirx.PrimFunc]
Alternatives = Callable[[tirx.PrimFunc], Sequence[tirx.PrimFunc]]


@dataclass(frozen=True)
class Run:
    """The settings, the tools, and the rows of tasks that were left out."""

    config: TuneConfig
    bench: Bench
    database: TuneDatabase
    clock: Clock
    schedule: Schedule
    alternatives: Alternatives | None = None
    finish: Finish | None = None
    left_out: list[TuneRow] = field(default_factory=list)

    def count_left(self, states: Sequence[TaskState]) -> None:
        """Tell the clock the steps that are left once the defaults are timed."""
        trials, choices = sum(s.left for s in states), sum(s.quota > 0 for s in states)
        self.clock.plan(baseline=0, trial=trials, choice=choices)
