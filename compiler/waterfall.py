"""What each pass bought: one row a pass, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Status = Literal["applied", "undone", "no change", "size only"]


@dataclass(frozen=True)
class Reading:
    """A module at one point of the pipeline. ``None`` where nothing was measured.

    ``ops`` counts operators by name; ``bytes`` are of the weights as stored; ``ms`` is the
    median latency of a call; ``error`` compares outputs with the imported model's
    (``max_abs``, ``rel`` = max|y - ref| / max|ref|, ``cosine``).
    """

    ops: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    ms: float | None = None
    error: Mapping[str, float] | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Row:
    """One pass: the time it took and what it changed."""

    name: str
    phase: str
    seconds: float
    before: Reading
    after: Reading
    status: Status = "applied"
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The waterfall of one compilation, in pipeline order, and the seconds of each stage.

    ``resources`` lists, by architecture, what each kernel takes of a GPU.
    ``cache`` says what the compile cache did: where the model was taken from it, ``seconds`` are
    those of loading and ``rows`` tell of the compilation that made it.
    """

    rows: tuple[Row, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    cache: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        rows = tuple(
            Row(**{**row, "before": Reading(**row["before"]), "after": Reading(**row["after"])})
            for row in data["rows"]
        )
        return cls(
            rows,
            dict(data["seconds"]),
            str(data.get("cache", "")),
            dict(data.get("resources", {})),
        )

    def timeless(self) -> Report:
        """This report without how long anything took, and without what the cache did."""
        rows = tuple(replace(row, seconds=0.0) for row in self.rows)
        return replace(self, rows=rows, seconds={}, cache="")

    def extended(self, *rows: Row, **seconds: float) -> Report:
        """This report with more rows and stage times."""
        return replace(self, rows=self.rows + rows, seconds={**self.seconds, **seconds})
