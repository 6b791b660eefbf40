"""The workspace of a recurrence, and its products."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.recurrence.product import Loops, Product
from burnish.targets.recurrence_form import Cell, Operands

ZERO = loops.const(0)


class Held:
    """States of two steps, and what is handed from one product of a step to the next."""

    def __init__(self, cell: Cell, given: Operands, how: Loops) -> None:
        self.cell, self.given, self.how = cell, given, how
        self.steps, self.batch = loops.extent(given.steps), loops.extent(given.batch)
        self.resets = cell.kind == "GRU" and not cell.after
        self.products = [
            Product(weights, gates, self.batch, how) for weights, gates in self._factors()
        ]
        inner, outer = self.products[0].padded, self.products[-1].padded
        self.states = loops.workspace([2, self.batch, outer], given.dtype, "states")
        self.cells, self.between, self.updates = (
            loops.workspace([self.batch, inner], given.dtype, name)
            for name in ("cells", "between", "updates")
        )
        self.kept = [self.states]
        self.kept += [self.cells] * (cell.kind == "LSTM")
        self.kept += [self.between] * (len(self.products) == 2) + [self.updates] * self.resets

    def _factors(self) -> list[tuple[Var, range]]:
        """Weights of the products of a step, and their gates."""
        r, w = self.given.r, self.given.w
        if self.resets:
            return [(r, range(2)), (r, range(2, 3))]
        every = [(r, range(int(r.shape[2])))]
        return every if w is None else [*every, (w, range(1))]

    def start(self) -> Stmt:
        """The first states."""
        given = self.given
        parts = [
            self._each(
                given.units, lambda b, j: loops.store(self.states, given.h0[b, j], [ZERO, b, j])
            )
        ]
        if given.c0 is not None:
            c0, more = given.c0, self.products[0].padded - given.hidden
            zero = tirx.const(0, given.dtype)
            parts.append(
                self._each(given.hidden, lambda b, j: loops.store(self.cells, c0[b, j], [b, j]))
            )
            # What stands behind the last unit is computed with, though never used.
            behind = self._each(
                more, lambda b, j: loops.store(self.cells, zero, [b, j + given.hidden])
            )
            parts += [behind] * (more > 0)
        return loops.seq(*parts)

    def finish(self) -> Stmt:
        """The last states are results."""
        given, now = self.given, tirx.floormod(self.steps, loops.const(2))

        def state(b: Expr, j: Expr) -> Stmt:
            return loops.store(given.h, self.states[now, b, j], [b, j])

        def memory(b: Expr, j: Expr) -> Stmt:
            return loops.store(given.c, self.cells[b, j], [b, j])

        parts = [self._each(given.units, state)]
        if given.c is not None:
            parts.append(self._each(given.hidden, memory))
        return loops.seq(*parts)

    def _each(self, units: int, body: Callable[[Expr, Expr], Stmt]) -> Stmt:
        return loops.serial(
            self.batch, lambda b: loops.serial(units, lambda j: body(b, j), "j"), "b"
        )

    def time(self, s: Expr, b: Expr) -> Expr:
        """Where in the sequence of row ``b`` step ``s`` is."""
        if not self.cell.reverse:
            return s
        if self.given.lengths is None:
            return self.steps - 1 - s
        return tirx.max(self.length(b) - 1 - s, ZERO)

    def length(self, b: Expr) -> Expr:
        """Steps of a row."""
        assert self.given.lengths is not None
        return tirx.min(self.given.lengths[b].astype("int64"), self.steps)


__all__ = ["ZERO", "Held"]
