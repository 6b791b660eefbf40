"""A unit's new state from the sums of its gates, kept in shared memory and given as a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.gpu.launch import bound
from burnish.targets.gpu.recurrence.cell_math import CellMath
from burnish.targets.gpu.recurrence.held import ZERO, Held


@dataclass(frozen=True)
class At:
    """A unit of a row of the block in a step: its gates' ``sums``, what the inputs give to them,
    and its state (of an LSTM its memory) before the step; ``now`` is where those states are."""

    step: Expr
    now: Expr
    row: Expr
    unit: Expr
    sums: Sequence[Expr]
    given: Sequence[Expr]
    state: Expr
    memory: Expr

    @property
    def totals(self) -> list[Expr]:
        return [a + b for a, b in zip(self.given, self.sums, strict=True)]

    @property
    def place(self) -> list[Expr]:
        """In buffers of a number a unit."""
        return [self.row, self.unit]


class NewStates:
    """What is done with a unit after the product of a step, by the kind of cell."""

    def __init__(self, held: Held) -> None:
        self.held, self.math = held, CellMath(held.cell)

    def lstm(self, at: At) -> Stmt:
        """All of it, or its hidden state alone where that is projected."""
        held, p = self.held, self.held.given.p
        peep = None if p is None else [held.wide(p[i, at.unit]) for i in range(3)]

        def then(h: Expr, c: Expr) -> Stmt:
            keep = loops.store(held.cells, self._alive(at, c, at.memory), at.place)
            if held.cell.projected:
                return loops.seq(keep, loops.store(held.between, h, at.place))
            return loops.seq(keep, self._give(at, h))

        return self.math.lstm(at.totals, at.memory, peep, then)

    def projected(self, at: At) -> Stmt:
        """An LSTM's second product."""
        return self._give(at, at.sums[0])

    def rnn(self, at: At) -> Stmt:
        return self._give(at, self.math.rnn(at.totals))

    def gru_after(self, at: At) -> Stmt:
        """A GRU whose reset scales the product."""
        assert self.held.given.rb is not None
        rb = self.held.wide(self.held.given.rb[at.unit])
        update, reset = self.math.gates(at.totals)
        candidate = at.given[2] + reset * (rb + at.sums[2])
        return bound(lambda z: self._give(at, self.math.mixed(z, candidate, at.state)), z=update)

    def reset(self, at: At) -> Stmt:
        """The first product of a GRU that resets before the second."""
        update, reset = self.math.gates(at.totals)
        state = self.held.states[at.now, at.row, at.unit]
        return loops.seq(
            loops.store(self.held.updates, update, at.place),
            loops.store(self.held.between, reset * state, at.place),
        )

    def candidate(self, at: At) -> Stmt:
        """The second."""
        update = self.held.updates[at.row, at.unit]
        return self._give(at, self.math.mixed(update, at.totals[0], at.state))

    def _alive(self, at: At, new: Expr, old: Expr) -> Expr:
        """``new`` for rows with steps left, ``old`` for the others."""
        if self.held.given.lengths is None:
            return new
        return tirx.Select(at.step < _length(self.held, at.row), new, old)

    def _give(self, at: At, state: Expr) -> Stmt:
        """Rows with no steps left keep their states and give zeros."""
        held = self.held

        def put(h: Expr) -> Stmt:
            y = self._alive(at, held.narrow(h), tirx.const(0, held.stored))
            t = self._alive(at, time_of(held, at.step, at.row), at.step)
            kept = self._alive(at, h, at.state)
            return loops.seq(
                loops.store(held.states, kept, [1 - at.now, *at.place]),
                loops.store(held.given.y, y, [t, held.row + at.row, at.unit]),
            )

        return bound(put, h=state)


def time_of(held: Held, s: Expr, r: Expr) -> Expr:
    """Where in the sequence of a row step ``s`` is."""
    if not held.cell.reverse:
        return s
    if held.given.lengths is None:
        return held.given.steps - 1 - s
    return tirx.max(_length(held, r) - 1 - s, ZERO)


def _length(held: Held, r: Expr) -> Expr:
    assert held.given.lengths is not None
    return tirx.min(held.given.lengths[held.row + r].astype("int64"), held.given.steps)


__all__ = ["At", "NewStates", "time_of"]
