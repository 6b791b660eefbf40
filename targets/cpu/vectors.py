"""Whole vectors as values: loads and stores of ``lanes`` elements, and moves between lanes.

Loops that vectorize need none of this; what crosses lanes (transposing, folding) does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir.prim import Ramp, Shuffle
from tvm.tirx import Bind, Stmt

from burnish.targets.cpu import loops

Combine = Callable[[Expr, Expr], Expr]


class Block:
    """Straight-line code over named vectors; ``done`` gives its statements."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.statements: list[Stmt] = []

    def name(self, value: Expr) -> Var:
        """``value``, computed here once."""
        var = Var("x", str(value.ty.dtype))
        self.statements.append(Bind(var, value))
        return var

    def load(self, buffer: Var, at: Sequence[Any]) -> Var:
        """``lanes`` elements from index ``at`` on along the last axis."""
        return self.name(buffer[tuple(_run(at, self.lanes))])

    def store(self, buffer: Var, value: Expr, at: Sequence[Any]) -> None:
        self.statements.append(loops.store(buffer, value, _run(at, self.lanes)))

    def put(self, buffer: Var, value: Expr, at: Sequence[Any]) -> None:
        """One element."""
        self.statements.append(loops.store(buffer, value, at))

    def done(self) -> Stmt:
        return loops.seq(*self.statements)

    def transposed(self, rows: Sequence[Var]) -> list[Var]:
        """``lanes`` vectors of ``lanes`` elements: vector ``i``, lane ``j`` -> ``j``, ``i``.

        Each round interleaves rows ``i`` and ``i + lanes / 2``, which turns the index (row, lane)
        by one bit; after ``log2(lanes)`` rounds its halves have changed places.
        """
        half, now = self.lanes // 2, list(rows)
        for _ in range(self.lanes.bit_length() - 1):
            now = [
                self.name(shuffled(now[i], now[i + half], self._zipped(first)))
                for i in range(half)
                for first in (0, half)
            ]
        return now

    def _zipped(self, first: int) -> list[int]:
        half = self.lanes // 2
        return [lane for i in range(first, first + half) for lane in (i, i + self.lanes)]

    def sums(self, rows: Sequence[Var]) -> Var:
        """``lanes`` vectors -> one whose lane ``i`` is the sum over the lanes of vector ``i``."""
        now, size = list(rows), self.lanes
        while len(now) > 1:
            half = len(now) // 2
            size //= 2
            low = [
                lane
                for start in range(0, self.lanes, 2 * size)
                for side in (0, self.lanes)
                for lane in range(side + start, side + start + size)
            ]
            high = [lane + size for lane in low]
            now = [
                self.name(
                    shuffled(now[i], now[i + half], low) + shuffled(now[i], now[i + half], high)
                )
                for i in range(half)
            ]
        return now[0]

    def folded(self, value: Var, combine: Combine) -> Expr:
        """All lanes of ``value`` combined into one scalar."""
        size = self.lanes
        while size > 1:
            size //= 2
            turned = [(lane + size) % self.lanes for lane in range(self.lanes)]
            value = self.name(combine(value, Shuffle([value], _indices(turned))))
        return self.name(Shuffle([value], _indices([0])))


def shuffled(a: Expr, b: Expr, lanes: Sequence[int]) -> Expr:
    """Those lanes of ``a`` followed by ``b``."""
    return Shuffle([a, b], _indices(lanes))


def _indices(lanes: Sequence[int]) -> list[Expr]:
    return [tirx.const(lane, "int32") for lane in lanes]


def _run(at: Sequence[Any], lanes: int) -> list[Any]:
    *head, last = at
    base = loops.const(last) if isinstance(last, int) else last
    return [*head, Ramp(base, tirx.const(1, str(base.ty.dtype)), lanes)]
