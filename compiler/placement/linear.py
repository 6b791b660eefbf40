"""A mixed-integer program put together row by row, and solved by HiGHS through scipy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

FINISHED, OUT_OF_TIME, IMPOSSIBLE = 0, 1, 2
"""States of scipy's ``milp``."""


@dataclass
class Program:
    """Variables by number, and rows ``low <= sum of coefficients times variables <= high``."""

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    rows: list[Mapping[int, float]] = field(default_factory=list)
    row_low: list[float] = field(default_factory=list)
    row_high: list[float] = field(default_factory=list)

    def variable(self, low: float, high: float, *, whole: bool = False, cost: float = 0.0) -> int:
        """A new variable's number."""
        self.low.append(low)
        self.high.append(high)
        self.whole.append(whole)
        self.cost.append(cost)
        return len(self.low) - 1

    def at_least(self, row: Mapping[int, float], low: float) -> None:
        """``row >= low``."""
        self._row(row, low, np.inf)

    def at_most(self, row: Mapping[int, float], high: float) -> None:
        """``row <= high``."""
        self._row(row, -np.inf, high)

    def equal(self, row: Mapping[int, float], value: float) -> None:
        """``row == value``."""
        self._row(row, value, value)

    def _row(self, row: Mapping[int, float], low: float, high: float) -> None:
        self.rows.append(row)
        self.row_low.append(low)
        self.row_high.append(high)

    def solve(self, time_limit_s: float, *, gap: float = 0.0) -> Solution:
        """The least cost; what was found, where time runs out."""
        counts = [len(row) for row in self.rows]
        columns = np.fromiter((at for row in self.rows for at in row), np.int64, sum(counts))
        values = np.fromiter((x for row in self.rows for x in row.values()), float, sum(counts))
        starts = np.concatenate([[0], np.cumsum(counts)])
        matrix = csr_array((values, columns, starts), shape=(len(self.rows), len(self.low)))
        found: Any = milp(
            self.cost,
            integrality=np.array(self.whole, int),
            bounds=Bounds(np.array(self.low), np.array(self.high)),
            constraints=LinearConstraint(matrix, self.row_low, self.row_high),
            options={"time_limit": time_limit_s, "mip_rel_gap": gap},
        )
        bound = getattr(found, "mip_dual_bound", None)
        cost = None if found.x is None else float(found.fun)
        return Solution(int(found.status), found.x, cost, bound, str(found.message))


@dataclass(frozen=True)
class Solution:
    """``status`` is one of scipy's; ``x`` and ``cost`` are ``None`` where nothing was found."""

    status: int
    x: npt.NDArray[np.float64] | None
    cost: float | None
    bound: float | None
    message: str
