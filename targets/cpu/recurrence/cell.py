"""States of a panel's units from the sums of their gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.recurrence.held import Held
from burnish.targets.cpu.recurrence.product import Product
from burnish.targets.recurrence_form import Gates


@dataclass(frozen=True)
class At:
    """A panel of units of a ``row`` of the batch in a ``step``, whose ``time`` in the sequence it
    is; ``sums[index, g]`` are its gates' sums, and ``now`` is where the states before are."""

    sums: Var
    index: Expr
    step: Expr
    now: Expr
    time: Expr
    row: Expr
    panel: Expr

    def sum(self, gate: int, v: Any) -> Expr:
        return self.sums[self.index, gate, v]


class NewStates:
    """What is done with the sums of ``product``, by the kind of cell."""

    def __init__(self, held: Held, product: Product) -> None:
        self.held, self.product, self.gate = held, product, Gates(held.cell)

    def last(self, at: At) -> Stmt:
        """New states, and results unless they are projected first."""
        make = {"LSTM": self._lstm, "GRU": self._gru_after, "RNN": self._rnn}[self.held.cell.kind]
        states = make(at)
        if self.held.given.w is not None:
            return states
        return loops.seq(states, self._publish(at))

    def projected(self, at: At) -> Stmt:
        """An LSTM's second product."""
        return loops.seq(
            self.product.columns(lambda v: self._store_state(at, v, at.sum(0, v))),
            self._publish(at),
        )

    def reset(self, at: At) -> Stmt:
        """The first product of a GRU that resets before the second."""
        held = self.held

        def between(v: Any) -> Stmt:
            value = self.gate(0, at.sum(1, v)) * self._state(at, v)
            return loops.store(held.between, value, self._place(at, v))

        return loops.seq(
            self.product.columns(
                lambda v: loops.store(held.updates, self.gate(0, at.sum(0, v)), self._place(at, v))
            ),
            self.product.columns(between),
        )

    def candidate(self, at: At) -> Stmt:
        """The second."""
        updates = self.held.updates
        return loops.seq(
            self._put(at, 0, lambda v: self.gate(1, at.sum(0, v))),
            self.product.columns(
                lambda v: self._mixed(at, v, updates[tuple(self._place(at, v))], at.sum(0, v))
            ),
            self._publish(at),
        )

    def kept(self, at: At) -> Stmt:
        """Of a row with no steps left: its states as they were, and zeros."""
        zero = tirx.const(0, self.held.given.dtype)
        return loops.seq(
            self.product.columns(lambda v: self._store_state(at, v, self._state(at, v))),
            self._results(at, at.step, lambda _j: zero),
        )

    def _rnn(self, at: At) -> Stmt:
        return self.product.columns(lambda v: self._store_state(at, v, self.gate(0, at.sum(0, v))))

    def _gru_after(self, at: At) -> Stmt:
        """Order of gates z, r, h."""
        x = self.held.given.x

        def candidate(v: Any) -> Expr:
            given = x[at.time, at.row, 2, self._column(at, v)]
            return self.gate(1, given + at.sum(1, v) * at.sum(2, v))

        return loops.seq(
            self._put(at, 0, lambda v: self.gate(0, at.sum(0, v))),
            self._put(at, 1, lambda v: self.gate(0, at.sum(1, v))),
            self._put(at, 2, candidate),
            self.product.columns(lambda v: self._mixed(at, v, at.sum(0, v), at.sum(2, v))),
        )

    def _lstm(self, at: At) -> Stmt:
        """Order of gates i, o, f, c."""
        held, gate, p = self.held, self.gate, self.held.given.p
        one = tirx.const(1, held.given.dtype)

        def memory(v: Any) -> Expr:
            return held.cells[tuple(self._place(at, v))]

        def peek(which: int, factor: int, v: Any) -> Expr:
            value = at.sum(which, v)
            return value if p is None else value + p[factor, self._column(at, v)] * memory(v)

        def forget(v: Any) -> Expr:
            return one - at.sum(0, v) if held.cell.coupled else gate(0, peek(2, 1, v))

        def keep(v: Any) -> Stmt:
            value = at.sum(2, v) * memory(v) + at.sum(0, v) * at.sum(3, v)
            return loops.store(held.cells, value, self._place(at, v))

        def made(v: Any) -> Stmt:
            value = at.sum(1, v) * gate.unclipped(2, memory(v))
            if held.given.w is not None:
                return loops.store(held.between, value, self._place(at, v))
            return self._store_state(at, v, value)

        return loops.seq(
            self._put(at, 0, lambda v: gate(0, peek(0, 0, v))),
            self._put(at, 2, forget),
            self._put(at, 3, lambda v: gate(1, at.sum(3, v))),
            self.product.columns(keep),
            self._put(at, 1, lambda v: gate(0, peek(1, 2, v))),
            self.product.columns(made),
        )

    def _mixed(self, at: At, v: Any, z: Expr, new: Expr) -> Stmt:
        """Of a GRU."""
        one = tirx.const(1, self.held.given.dtype)
        return self._store_state(at, v, (one - z) * new + z * self._state(at, v))

    def _put(self, at: At, gate: int, value: Callable[[Any], Expr]) -> Stmt:
        """In the place of a gate's sums."""
        return self.product.columns(lambda v: loops.store(at.sums, value(v), [at.index, gate, v]))

    def _column(self, at: At, v: Any) -> Expr:
        return at.panel * self.product.width + v

    def _place(self, at: At, v: Any) -> list[Expr]:
        return [at.row, self._column(at, v)]

    def _state(self, at: At, v: Any) -> Expr:
        """Before the step."""
        return self.held.states[(at.now, *self._place(at, v))]

    def _store_state(self, at: At, v: Any, value: Expr) -> Stmt:
        return loops.store(self.held.states, value, [1 - at.now, *self._place(at, v)])

    def _publish(self, at: At) -> Stmt:
        return self._results(at, at.time, lambda j: self.held.states[1 - at.now, at.row, j])

    def _results(self, at: At, time: Expr, value: Callable[[Expr], Expr]) -> Stmt:
        """Columns of a panel that are units, stored to ``y[time]``."""
        width, y = self.product.width, self.held.given.y
        full, rest = divmod(self.held.given.units, width)

        def put(v: Any) -> Stmt:
            j = self._column(at, v)
            return loops.store(y, value(j), [time, at.row, j])

        def some(count: int) -> Stmt:
            return self.product.how.columns(count, put)

        if not rest:
            return some(width)
        if not full:
            return some(rest)
        return loops.branch(at.panel < full, some(width), some(rest))


__all__ = ["At", "NewStates"]
