"""What one unit of a recurrence computes from its gates' sums, as expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets.gpu.launch import bound
from burnish.targets.recurrence_form import Cell, Gates


class CellMath:
    """The functions of a cell, in the type that its sums have."""

    def __init__(self, cell: Cell) -> None:
        self.cell, self._gate = cell, Gates(cell)

    def lstm(
        self,
        sums: Sequence[Expr],
        memory: Expr,
        peepholes: Sequence[Expr] | None,
        then: Callable[[Expr, Expr], Stmt],
    ) -> Stmt:
        """``then`` of the new state and the new memory; gates in the order i, o, f, c."""
        of_i, of_o, of_f, of_c = sums
        peep = [factor * memory for factor in peepholes] if peepholes else None
        first = self._gate(0, of_i + peep[0] if peep else of_i)
        candidate = self._gate(1, of_c)

        def kept(i: Expr) -> Expr:
            if self.cell.coupled:
                return tirx.const(1, str(i.ty.dtype)) - i
            return self._gate(0, of_f + peep[1] if peep else of_f)

        def last(new: Expr) -> Stmt:
            # What the last gate sees of the memory is the new one.
            out = of_o + peepholes[2] * new if peepholes else of_o
            state = self._gate(0, out) * self._gate.unclipped(2, new)
            return bound(lambda h: then(h, new), h=state)

        return bound(lambda i: bound(last, c=kept(i) * memory + i * candidate), i=first)

    def rnn(self, sums: Sequence[Expr]) -> Expr:
        """The new state."""
        return self._gate(0, sums[0])

    def gates(self, sums: Sequence[Expr]) -> list[Expr]:
        """Of a GRU: z and r."""
        return [self._gate(0, value) for value in sums[:2]]

    def mixed(self, update: Expr, candidate: Expr, state: Expr) -> Expr:
        """Of a GRU: the new state, from z and the sum that makes its candidate."""
        one = tirx.const(1, str(update.ty.dtype))
        return (one - update) * self._gate(1, candidate) + update * state
