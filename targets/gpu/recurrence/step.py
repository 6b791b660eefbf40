"""Rule 3: a product of a step, and the units whose gates it sums, in turns of a block's threads."""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.gpu.launch import barrier, guarded, rolled
from burnish.targets.gpu.recurrence.cell import At, NewStates, time_of
from burnish.targets.gpu.recurrence.held import ZERO, Held
from burnish.targets.gpu.recurrence.product import Product

PerUnit = Callable[[Expr, Expr, Expr, Expr], Stmt]
"""By the turn of a thread, the row, the unit of the chunk, and the unit of all."""


def step(held: Held, s: Expr, now: Expr) -> Stmt:
    """All of step ``s``; ``now`` is where the states before it are."""
    new = NewStates(held)
    first, *second = held.products

    def states(r: Expr, k: Expr) -> Expr:
        return held.states[now, r, k]

    if not second:
        put = {"LSTM": new.lstm, "GRU": new.gru_after, "RNN": new.rnn}[held.cell.kind]
        return _Step(held, first, s, now).units(states, put)
    inner, outer = new.lstm, new.projected
    if held.cell.kind == "GRU":
        inner, outer = new.reset, new.candidate
    return loops.seq(
        _Step(held, first, s, now).units(states, inner),
        _Step(held, second[0], s, now).units(lambda r, k: held.between[r, k], outer),
    )


class _Step:
    """One product of a step.

    What a unit needs beside its sums is read before the product: what the inputs ``given`` to its
    gates, its state before, and an LSTM's memory.
    """

    def __init__(self, held: Held, product: Product, s: Expr, now: Expr) -> None:
        self.held, self.product, self.s, self.now = held, product, s, now
        self.items = held.rows * product.columns
        self.turns = -(-self.items // held.threads)
        self.gates = len(product.gates)
        last = product is held.products[-1]
        self.reads_inputs = product.weights is held.products[0].weights
        self.reads_states = last and (held.cell.kind == "GRU" or held.cell.lengths)
        self.reads_memory = self.reads_inputs and held.cell.kind == "LSTM"
        self.inputs = loops.local([self.turns * self.gates], held.stored, "inputs")
        self.before = loops.local([self.turns], held.dtype, "before")
        self.memory = loops.local([self.turns], held.dtype, "memory")

    def units(self, source: Callable[[Expr, Expr], Expr], put: Callable[[At], Stmt]) -> Stmt:
        """``put`` of every unit, after the product with ``source``."""
        held, product = self.held, self.product

        def turn(chunk: Expr) -> Stmt:
            reads = self._buffers()
            return loops.seq(
                *map(loops.allocate, reads),
                *([self._over(chunk, self._read)] if reads else []),
                held.sums.parts(product, chunk, held.thread, source),
                barrier(),
                self._over(chunk, lambda i, r, u, j: put(self._at(i, r, u, j))),
                barrier(),
            )

        return rolled(product.chunks, turn, "chunk")

    def _buffers(self) -> list[Var]:
        """Those that are read to."""
        flags = (self.reads_inputs, self.reads_states, self.reads_memory)
        buffers = (self.inputs, self.before, self.memory)
        return [buffer for buffer, used in zip(buffers, flags, strict=True) if used]

    def _over(self, chunk: Expr, body: PerUnit) -> Stmt:
        """``body`` of each unit of a chunk."""
        held, product, items = self.held, self.product, self.items
        whole = self.turns * held.threads == items

        def turn(i: Expr) -> Stmt:
            item = i * held.threads + held.thread
            r, u = (ZERO, item) if held.rows == 1 else loops.split_two(item, product.columns)
            j = chunk * product.columns + u
            exists = held.there(r)
            if not whole and (held.rows > 1 or product.chunks > 1):
                exists.append(item < items)
            if product.chunks * product.columns != product.units or not whole:
                exists.append(j < product.units)
            return guarded(exists, body(i, r, u, j))

        return loops.unroll(self.turns, turn, "i")

    def _read(self, i: Expr, r: Expr, _u: Expr, j: Expr) -> Stmt:
        held, parts = self.held, []
        if self.reads_inputs:
            time = time_of(held, self.s, r)
            for g, gate in enumerate(self.product.gates):
                value = held.given.x[time, held.row + r, gate, j]
                parts.append(loops.store(self.inputs, value, [i * self.gates + g]))
        if self.reads_states:
            parts.append(loops.store(self.before, held.states[self.now, r, j], [i]))
        if self.reads_memory:
            parts.append(loops.store(self.memory, held.cells[r, j], [i]))
        return loops.seq(*parts)

    def _at(self, i: Expr, r: Expr, u: Expr, j: Expr) -> At:
        held, gates = self.held, range(self.gates)
        totals = [held.sums.total(self.product, r, u, g) for g in gates]
        given = [held.wide(self.inputs[(i * self.gates + g,)]) for g in gates]
        given = given if self.reads_inputs else []
        return At(self.s, self.now, r, j, totals, given, self.before[(i,)], self.memory[(i,)])


__all__ = ["step"]
