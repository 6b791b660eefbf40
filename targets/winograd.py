"""Winograd's minimal filtering for 3x3 windows: interpolation points and their matrices.

``F(m x m, 3 x 3)`` computes an ``m x m`` tile of outputs from ``n x n`` inputs, ``n = m + 2``, with
``n * n`` multiplications a pair of channels instead of ``9 * m * m``:

    Y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A

(Lavin and Gray 2016). The matrices follow from ``n - 1`` points and infinity (Toom and Cook). Ours
are zero and pairs ``+-p``, so that each transform shares its even and odd halves; scaling rows by
powers of two changes no rounding, so the points are all there is to choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Winograd:
    """``F(m x m, 3 x 3)`` with ``m = 2 * len(pairs)`` at the points 0, ``+-p`` and infinity.

    ``error`` bounds max|y - ref| / max|ref| in float32 for normal data and weights, up to 512
    channels.
    """

    pairs: tuple[Fraction, ...]
    error: float

    @property
    def m(self) -> int:
        """Outputs of a tile along one axis."""
        return 2 * len(self.pairs)

    @property
    def n(self) -> int:
        """Inputs of a tile along one axis; products too."""
        return self.m + 2

    @property
    def points(self) -> tuple[Fraction, ...]:
        """Without infinity: 0, then each ``p`` and ``-p``."""
        return (Fraction(0), *(sign * p for p in self.pairs for sign in (1, -1)))

    def output_matrix(self) -> np.ndarray:
        """``A^T [m, n]``."""
        rows = [
            [*(p**i for p in self.points), Fraction(int(i == self.m - 1))] for i in range(self.m)
        ]
        return np.array(rows, "float64")

    def weight_matrix(self) -> np.ndarray:
        """``G [n, 3]``."""
        rows = []
        for p in self.points:
            scale = Fraction(1)
            for other in self.points:
                if other != p:
                    scale *= p - other
            rows.append([p**k / scale for k in range(3)])
        return np.array([*rows, [0, 0, 1]], "float64")

    def input_matrix(self) -> np.ndarray:
        """``B^T [n, n]``."""
        rows = [polynomial([q for q in self.points if q != p]) for p in self.points]
        rows.append(polynomial(self.points))
        return np.array([[*row, *[Fraction(0)] * (self.n - len(row))] for row in rows], "float64")


def polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, the lowest first, of the product of ``x - root``."""
    found = [Fraction(1)]
    for root in roots:
        lower, higher = [*found, Fraction(0)], [Fraction(0), *found]
        found = [a - root * b for a, b in zip(higher, lower, strict=True)]
    return found


F2 = Winograd((Fraction(1),), 2e-6)
F4 = Winograd((Fraction(5, 8), Fraction(3, 2)), 1e-5)
"""The pairs of least error among multiples of 1/8, by trial; 1 and 2 err over twice as much."""
