"""Rule 2: the gates' sums of a task, and what becomes of its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.recurrence.cell import At, NewStates
from burnish.targets.cpu.recurrence.held import ZERO, Held
from burnish.targets.cpu.recurrence.product import Product


def step(held: Held, s: Expr, now: Expr) -> Stmt:
    """All of step ``s``; ``now`` is where the states before it are."""
    first, *second = held.products

    def states(b: Expr, k: Expr) -> Expr:
        return held.states[now, b, k]

    def between(b: Expr, k: Expr) -> Expr:
        return held.between[b, k]

    new = NewStates(held, first)
    if not second:
        return _Tiles(held, first, s, now, states, new.last).tasks()
    outer = NewStates(held, second[0])
    inside, outside = new.last, outer.projected
    if held.resets:
        inside, outside = new.reset, outer.candidate
    return loops.seq(
        _Tiles(held, first, s, now, states, inside).tasks(),
        _Tiles(held, second[0], s, now, between, outside).tasks(),
    )


class _Tiles:
    """One product of a step: of ``operand``, its sums given to ``cell``."""

    def __init__(
        self,
        held: Held,
        product: Product,
        s: Expr,
        now: Expr,
        operand: Callable[[Expr, Expr], Expr],
        cell: Callable[[At], Stmt],
    ) -> None:
        self.held, self.product, self.s, self.now = held, product, s, now
        self.operand, self.cell = operand, cell

    def tasks(self) -> Stmt:
        return self.product.tasks(self._tile)

    def _tile(self, panel: Expr, b: Expr, rows: int) -> Stmt:
        """The sums of ``rows`` rows from ``b`` on, then the cell."""
        product, gates = self.product, self.product.gates
        shape = [rows, len(gates), product.width]
        sums = loops.local(shape, self.held.given.dtype, "sums")

        def term(k: Expr) -> Stmt:
            def add(i: Any, g: Any, v: Any) -> Stmt:
                weight = product.weights[panel, k, g + gates.start, v]
                value = sums[i, g, v] + self.operand(b + i, k) * weight
                return loops.store(sums, value, [i, g, v])

            return product.over(rows, gates, add)

        def row(i: Any, totals: Var) -> Stmt:
            at = b + i
            return loops.named(
                lambda t: self._alive(At(totals, i, self.s, self.now, t, at, panel)),
                t=self.held.time(self.s, at),
            )

        begin = self._begin(sums, panel, b, rows)
        parts = [loops.allocate(sums), begin, loops.serial(product.depth, term, "k")]
        if rows == 1:
            return loops.seq(*parts, row(ZERO, sums))
        # A loop over rows cannot index registers, and the cell's code for each row is long.
        totals = loops.local(shape, self.held.given.dtype, "held")
        return loops.seq(
            *parts,
            loops.allocate(totals),
            product.over(
                rows, gates, lambda i, g, v: loops.store(totals, sums[i, g, v], [i, g, v])
            ),
            loops.serial(rows, lambda i: row(i, totals), "i"),
        )

    def _begin(self, sums: Var, panel: Expr, b: Expr, rows: int) -> Stmt:
        """What the inputs give; nothing to the projection of states."""
        held, product, gates = self.held, self.product, self.product.gates
        column = panel * product.width

        def begin(i: Any, g: Any, v: Any) -> Stmt:
            row = b + i
            value = held.given.x[held.time(self.s, row), row, g + gates.start, column + v]
            if product.weights is held.given.w:
                value = tirx.const(0, held.given.dtype)
            return loops.store(sums, value, [i, g, v])

        if held.given.rb is None:
            return product.over(rows, gates, begin)
        # The candidate's product is kept apart from its projection.
        rb, last = held.given.rb, len(gates) - 1
        return loops.seq(
            product.over(rows, range(last), begin),
            product.over(
                rows,
                range(last, last + 1),
                lambda i, g, v: loops.store(sums, rb[column + v], [i, loops.const(last), v]),
            ),
        )

    def _alive(self, at: At) -> Stmt:
        """The cell, for rows with steps left; the others keep their states and give zeros."""
        held, product = self.held, self.product
        body = self.cell(at)
        if held.given.lengths is None:
            return body
        alive = at.step < held.length(at.row)
        if held.given.w is not None and product.weights is not held.given.w:
            return loops.branch(alive, body, None)
        new = NewStates(held, product)
        return loops.branch(alive, body, new.kept(at))


__all__ = ["step"]
