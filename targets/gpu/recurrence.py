"""Rule for recurrences (LSTM, GRU, plain RNN): a block of threads takes all steps of some rows.

The kernel is the one that :mod:`burnish.targets.cpu.recurrence` describes: what the inputs give is
a product before it, by the rules for products; what is left of a step is the product of the last
states with the recurrent weights, and the cell.

1. A block keeps the states of its rows in shared memory; rows never meet, so blocks never wait for
   each other. There is one row a block until there are more rows than a large GPU has
   multiprocessors.
2. A step's product: a thread sums four neighbouring units of one gate, over a part of the states
   (``splits``); neighbours read neighbouring weights, sixteen bytes each. What does not fit the
   threads of a block is done in turns (``chunks``) of whole panels of weights.
3. The cell: after a barrier, a thread adds up the parts of all gates of a unit. What it needs of
   the inputs it has read before the product.
4. A GRU that resets before its product has two products a step, as has an LSTM that projects its
   states.
5. Two-byte floats are summed, and states kept, in float32.
6. Of a part, ``_TERMS`` are written out and the loop over them is not unrolled: NVIDIA's compiler
   would read as many weights as it has registers for before the first step, and spill.

What does not fit the shared memory of a device (some 2,000 units with 32 KiB) gives way to the
next rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.recurrence import RECURRENCE, Cell
from burnish.targets.gpu.cells import CellMath
from burnish.targets.gpu.launch import (
    Device,
    barrier,
    bound,
    guarded,
    launch,
    rolled,
    shared,
    strided,
)

_VECTOR = 4
_MOST_SPLITS = 8
_TERMS = 4
"""States of a part of a sum are a multiple of it."""
_MULTIPROCESSORS = 100
_MOST_ROWS = 4
_ZERO = loops.const(0)


def emit(func: tirx.PrimFunc, device: Device) -> tirx.PrimFunc | None:
    """The kernel of a recurrence, or ``None`` for any other function, or one that does not fit."""
    attrs = dict(func.attrs.items()) if func.attrs is not None else {}
    if RECURRENCE not in attrs:
        return None
    cell = Cell.of(attrs[RECURRENCE])
    batch = loops.as_int(func.params[0].shape[1])
    rows = 1 if batch is None else max(1, min(_MOST_ROWS, -(-batch // _MULTIPROCESSORS)))
    _, _, gates, width = map(int, func.params[1].shape)
    if gates * width // _VECTOR > device.threads:
        return None
    for count in range(rows, 0, -1):
        made = _Recurrence(cell, list(func.params), count, device)
        if made.shared_bytes <= device.shared:
            return func.with_body(made.body())
    return None


@dataclass(frozen=True)
class _Product:
    """Rule 2: sums over ``weights [P, K, G, NB]`` of some gates, for ``units`` columns."""

    weights: Var
    gates: range
    units: int
    threads: int

    @property
    def width(self) -> int:
        return int(self.weights.shape[3])

    @property
    def depth(self) -> int:
        return int(self.weights.shape[1])

    @property
    def each(self) -> int:
        """Threads for one panel."""
        return len(self.gates) * self.width // _VECTOR

    @property
    def chunks(self) -> int:
        return -(-int(self.weights.shape[0]) // max(1, self.threads // self.each))

    @property
    def panels(self) -> int:
        """Of a chunk."""
        return -(-int(self.weights.shape[0]) // self.chunks)

    @property
    def part(self) -> int:
        """States of a part of a sum."""
        most = min(_MOST_SPLITS, self.threads // self.lanes)
        return -(-self.depth // (most * _TERMS)) * _TERMS

    @property
    def splits(self) -> int:
        return -(-self.depth // self.part)

    @property
    def lanes(self) -> int:
        """Threads for a chunk, a part."""
        return self.each * self.panels

    @property
    def columns(self) -> int:
        """Units of a chunk."""
        return self.panels * self.width


@dataclass(frozen=True)
class _At:
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


class _Recurrence:
    """One kernel being written, of ``rows`` rows a block."""

    def __init__(self, cell: Cell, params: list[Var], rows: int, device: Device) -> None:
        self.cell, self.rows, self.math = cell, rows, CellMath(cell)
        left = iter(params)
        self.x, r = next(left), next(left)
        self.rb = next(left) if cell.after else None
        self.p = next(left) if cell.peepholes else None
        w = next(left) if cell.projected else None
        self.first = [next(left)]
        if cell.kind == "LSTM":
            self.first.append(next(left))
        self.lengths = next(left) if cell.lengths else None
        self.y, *self.last = left
        self.stored = str(self.x.dtype)
        self.dtype = "float32" if tvm.DataType(self.stored).itemsize == 2 else self.stored
        self.steps, self.batch = list(self.x.shape)[:2]
        self.units = int(self.y.shape[2])
        self.hidden = self.units if w is None else int(w.shape[1])
        gates, limit = int(r.shape[2]), device.threads
        if w is not None:
            self.products = [
                _Product(r, range(gates), self.hidden, limit),
                _Product(w, range(1), self.units, limit),
            ]
        elif cell.kind == "GRU" and not cell.after:
            self.products = [
                _Product(r, range(2), self.units, limit),
                _Product(r, range(2, 3), self.units, limit),
            ]
        else:
            self.products = [_Product(r, range(gates), self.units, limit)]
        most = max(product.lanes * product.splits for product in self.products)
        self.threads = -(-most // device.warp) * device.warp
        self.thread: Expr = _ZERO
        self.row: Expr = _ZERO
        sums = max(product.lanes * product.splits for product in self.products)
        self.states = shared([2, rows, self.units], self.dtype, "states")
        self.partial = shared([rows * sums * _VECTOR], self.dtype, "partial")
        self.kept = [self.states, self.partial]
        if cell.kind == "LSTM":
            self.cells = shared([rows, self.hidden], self.dtype, "cells")
            self.kept.append(self.cells)
        if len(self.products) == 2:
            self.between = shared([rows, self.hidden], self.dtype, "between")
            self.kept.append(self.between)
        if len(self.products) == 2 and w is None:
            self.updates = shared([rows, self.units], self.dtype, "updates")
            self.kept.append(self.updates)

    @property
    def shared_bytes(self) -> int:
        return sum(
            tvm.DataType(str(buffer.dtype)).itemsize * math.prod(int(n) for n in buffer.shape)
            for buffer in self.kept
        )

    def body(self) -> Stmt:
        if isinstance(self.batch, tirx.IntImm):
            blocks: loops.Extent = -(-int(self.batch) // self.rows)
        else:
            blocks = tirx.floordiv(self.batch + loops.const(self.rows - 1), self.rows)

        def of_block(block: Expr, thread: Expr) -> Stmt:
            self.thread, self.row = thread, block * self.rows
            return loops.seq(
                *[loops.allocate(buffer) for buffer in self.kept],
                self._start(),
                barrier(),
                loops.serial(
                    self.steps,
                    lambda s: loops.named(
                        lambda now: self._step(s, now), now=tirx.floormod(s, loops.const(2))
                    ),
                    "s",
                ),
                self._finish(),
            )

        return launch(blocks, self.threads, of_block)

    def _there(self, r: Expr) -> list[Expr]:
        """The condition that the batch has a row: the last block may have fewer."""
        known = loops.as_int(self.batch)
        if self.rows == 1 or (known is not None and known % self.rows == 0):
            return []
        return [self.row + r < self.batch]

    def _each(self, units: int, body: Callable[[Expr, Expr], Stmt]) -> Stmt:
        """``body`` of each row of the block and each unit."""

        def item(flat: Expr) -> Stmt:
            r, j = (_ZERO, flat) if self.rows == 1 else loops.split_two(flat, units)
            return guarded(self._there(r), body(r, j))

        return strided(self.rows * units, self.threads, self.thread, item)

    def _start(self) -> Stmt:
        h0 = self.first[0]
        parts = [
            self._each(
                self.units,
                lambda r, j: loops.store(
                    self.states, self._wide(h0[self.row + r, j]), [_ZERO, r, j]
                ),
            )
        ]
        if self.cell.kind == "LSTM":
            c0 = self.first[1]
            parts.append(
                self._each(
                    self.hidden,
                    lambda r, j: loops.store(self.cells, self._wide(c0[self.row + r, j]), [r, j]),
                )
            )
        return loops.seq(*parts)

    def _finish(self) -> Stmt:
        now = tirx.floormod(self.steps, loops.const(2))
        parts = [
            self._each(
                self.units,
                lambda r, j: loops.store(
                    self.last[0], self._narrow(self.states[now, r, j]), [self.row + r, j]
                ),
            )
        ]
        if self.cell.kind == "LSTM":
            parts.append(
                self._each(
                    self.hidden,
                    lambda r, j: loops.store(
                        self.last[1], self._narrow(self.cells[r, j]), [self.row + r, j]
                    ),
                )
            )
        return loops.seq(*parts)

    def _step(self, s: Expr, now: Expr) -> Stmt:
        first, *second = self.products

        def states(r: Expr, k: Expr) -> Expr:
            return self.states[now, r, k]

        if not second:
            put = {"LSTM": self._lstm, "GRU": self._gru_after, "RNN": self._rnn}[self.cell.kind]
            return self._sums(first, s, now, states, put)
        inner, outer = self._lstm, self._projected
        if self.cell.kind == "GRU":
            inner, outer = self._reset, self._candidate
        return loops.seq(
            self._sums(first, s, now, states, inner),
            self._sums(second[0], s, now, lambda r, k: self.between[r, k], outer),
        )

    def _sums(
        self,
        product: _Product,
        s: Expr,
        now: Expr,
        source: Callable[[Expr, Expr], Expr],
        put: Callable[[_At], Stmt],
    ) -> Stmt:
        """Rules 2 and 3: ``put`` of every unit."""
        items = self.rows * product.columns
        turns = -(-items // self.threads)
        gates = len(product.gates)
        inputs = loops.local([turns * gates], self.stored, "inputs")
        before = loops.local([turns], self.dtype, "before")
        memory = loops.local([turns], self.dtype, "memory")
        given = product.weights is self.products[0].weights
        kept = product is self.products[-1] and (self.cell.kind == "GRU" or self.cell.lengths)
        cells = given and self.cell.kind == "LSTM"

        def over(chunk: Expr, body: Callable[[Expr, Expr, Expr, Expr], Stmt]) -> Stmt:
            """``body`` of each turn of a thread, its row, its unit of the chunk and of all."""

            def turn(i: Expr) -> Stmt:
                item = i * self.threads + self.thread
                r, u = (_ZERO, item) if self.rows == 1 else loops.split_two(item, product.columns)
                j = chunk * product.columns + u
                exists = self._there(r)
                if turns * self.threads != items and (self.rows > 1 or product.chunks > 1):
                    exists.append(item < items)
                if (
                    product.chunks * product.columns != product.units
                    or turns * self.threads != items
                ):
                    exists.append(j < product.units)
                return guarded(exists, body(i, r, u, j))

            return loops.unroll(turns, turn, "i")

        def read(i: Expr, r: Expr, _u: Expr, j: Expr) -> Stmt:
            def inputs_at(t: Expr) -> list[Stmt]:
                return [
                    loops.store(inputs, self.x[t, self.row + r, gate, j], [i * gates + g])
                    for g, gate in enumerate(product.gates)
                ]

            parts = inputs_at(self._time(s, r)) if given else []
            if kept:
                parts.append(loops.store(before, self.states[now, r, j], [i]))
            if cells:
                parts.append(loops.store(memory, self.cells[r, j], [i]))
            return loops.seq(*parts)

        def finish(i: Expr, r: Expr, u: Expr, j: Expr) -> Stmt:
            totals = [self._total(product, r, u, g) for g in range(gates)]
            known = [self._wide(inputs[(i * gates + g,)]) for g in range(gates)]
            given_here = known if given else []
            return put(_At(s, now, r, j, totals, given_here, before[(i,)], memory[(i,)]))

        def turn(chunk: Expr) -> Stmt:
            begin = [loops.allocate(inputs)] if given else []
            begin += [loops.allocate(before)] if kept else []
            begin += [loops.allocate(memory)] if cells else []
            begin += [over(chunk, read)] if given or kept else []
            return loops.seq(
                *begin,
                self._parts(product, chunk, source),
                barrier(),
                over(chunk, finish),
                barrier(),
            )

        return rolled(product.chunks, turn, "chunk")

    def _parts(self, product: _Product, chunk: Expr, source: Callable[[Expr, Expr], Expr]) -> Stmt:
        """Rule 2."""
        split, lane = loops.split_two(self.thread, product.lanes)
        p, q = loops.split_two(lane, product.each)
        gate, column = loops.split_two(q, product.width // _VECTOR)
        sums = loops.local([self.rows * _VECTOR], self.dtype, "sums")

        def over(body: Callable[[Any, Any], Stmt]) -> Stmt:
            lanes = loops.vector if self.stored == "float32" else loops.unroll
            return loops.unroll(self.rows, lambda r: lanes(_VECTOR, lambda v: body(r, v), "v"), "r")

        def work(panel: Expr, g: Expr, at: Expr, start: Expr, split: Expr) -> Stmt:
            def term(k: Expr) -> Stmt:
                def add(r: Any, v: Any) -> Stmt:
                    weight = self._wide(product.weights[panel, start + k, g, at + v])
                    place = r * _VECTOR + v
                    value = sums[(place,)] + source(r, start + k) * weight
                    return loops.store(sums, value, [place])

                return over(add)

            whole = product.part * product.splits == product.depth

            def terms(block: Expr) -> Stmt:
                def one(u: Expr) -> Stmt:
                    k = block * _TERMS + u
                    return guarded([] if whole else [start + k < product.depth], term(k))

                return loops.unroll(_TERMS, one, "u")

            return loops.seq(
                loops.allocate(sums),
                over(lambda r, v: loops.store(sums, tirx.const(0, self.dtype), [r * _VECTOR + v])),
                rolled(product.part // _TERMS, terms, "k"),
                over(
                    lambda r, v: loops.store(
                        self.partial,
                        sums[(r * _VECTOR + v,)],
                        [((r * product.splits + split) * product.lanes + lane) * _VECTOR + v],
                    )
                ),
            )

        body = loops.named(
            work,
            panel=chunk * product.panels + p,
            g=gate + product.gates.start,
            at=column * _VECTOR,
            start=split * product.part,
            split=split,
        )
        panels = int(product.weights.shape[0])
        conditions = []
        if self.threads != product.lanes * product.splits:
            conditions.append(split < product.splits)
        if panels % product.panels:
            conditions.append(chunk * product.panels + p < panels)
        return guarded(conditions, body)

    def _total(self, product: _Product, r: Expr, u: Expr, g: int) -> Expr:
        p, v = loops.split_two(u, product.width)
        at = (p * len(product.gates) + g) * product.width + v
        size = product.lanes * _VECTOR
        parts = [
            self.partial[((r * product.splits + split) * size + at,)]
            for split in range(product.splits)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def _length(self, r: Expr) -> Expr:
        assert self.lengths is not None
        return tirx.min(self.lengths[self.row + r].astype("int64"), self.steps)

    def _time(self, s: Expr, r: Expr) -> Expr:
        """Where in the sequence of a row step ``s`` is."""
        if not self.cell.reverse:
            return s
        if self.lengths is None:
            return self.steps - 1 - s
        return tirx.max(self._length(r) - 1 - s, _ZERO)

    def _alive(self, at: _At, new: Expr, old: Expr) -> Expr:
        """``new`` for rows with steps left, ``old`` for the others."""
        if self.lengths is None:
            return new
        return tirx.Select(at.step < self._length(at.row), new, old)

    def _give(self, at: _At, state: Expr) -> Stmt:
        """Rows with no steps left keep their states and give zeros."""

        def put(h: Expr) -> Stmt:
            y = self._alive(at, self._narrow(h), tirx.const(0, self.stored))
            t = self._alive(at, self._time(at.step, at.row), at.step)
            return loops.seq(
                loops.store(
                    self.states, self._alive(at, h, at.state), [1 - at.now, at.row, at.unit]
                ),
                loops.store(self.y, y, [t, self.row + at.row, at.unit]),
            )

        return bound(put, h=state)

    def _lstm(self, at: _At) -> Stmt:
        here = [at.row, at.unit]
        peep = None if self.p is None else [self._wide(self.p[i, at.unit]) for i in range(3)]

        def then(h: Expr, c: Expr) -> Stmt:
            keep = loops.store(self.cells, self._alive(at, c, at.memory), here)
            if self.cell.projected:
                return loops.seq(keep, loops.store(self.between, h, here))
            return loops.seq(keep, self._give(at, h))

        return self.math.lstm(at.totals, at.memory, peep, then)

    def _projected(self, at: _At) -> Stmt:
        return self._give(at, at.sums[0])

    def _rnn(self, at: _At) -> Stmt:
        return self._give(at, self.math.rnn(at.totals))

    def _gru_after(self, at: _At) -> Stmt:
        assert self.rb is not None
        rb = self._wide(self.rb[at.unit])
        update, reset = self.math.gates(at.totals)
        candidate = at.given[2] + reset * (rb + at.sums[2])
        return bound(lambda z: self._give(at, self.math.mixed(z, candidate, at.state)), z=update)

    def _reset(self, at: _At) -> Stmt:
        update, reset = self.math.gates(at.totals)
        here = [at.row, at.unit]
        return loops.seq(
            loops.store(self.updates, update, here),
            loops.store(self.between, reset * self.states[at.now, at.row, at.unit], here),
        )

    def _candidate(self, at: _At) -> Stmt:
        update = self.updates[at.row, at.unit]
        return self._give(at, self.math.mixed(update, at.totals[0], at.state))

    def _wide(self, value: Expr) -> Expr:
        return value if self.stored == self.dtype else value.astype(self.dtype)

    def _narrow(self, value: Expr) -> Expr:
        return value if self.stored == self.dtype else value.astype(self.stored)
