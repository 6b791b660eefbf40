"""What tuning did, one row a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Choice = Literal["default", "tuned", "alternative"]


@dataclass(frozen=True)
class TuneRow:
    """One task: a kernel of the model, and what was found for it.

    ``count`` is how often the model calls it; ``trials`` the candidates measured in this run;
    ``default_ms`` and ``tuned_ms`` are of one call, from the last measurement that had both
    sides in it (``tuned_ms`` of the best candidate, chosen or not), else from screening;
    None where nothing was measured.
    """

    name: str
    count: int
    default_ms: float | None
    tuned_ms: float | None = None
    chosen: Choice = "default"
    trials: int = 0
    note: str = ""


@dataclass(frozen=True)
class TuneReport:
    """All tasks of a module, largest share of the time first; seconds in all, trials in all."""

    rows: tuple[TuneRow, ...] = ()
    seconds: float = 0.0
    trials: int = 0

    @property
    def saved_ms(self) -> float:
        """Milliseconds a call of the model that the chosen kernels save, by their timings."""
        return sum(
            row.count * (row.default_ms - row.tuned_ms)
            for row in self.rows
            if row.chosen != "default" and row.default_ms is not None and row.tuned_ms is not None
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TuneReport:
        return cls(tuple(TuneRow(**row) for row in data["rows"]), data["seconds"], data["trials"])
