"""Rule for recurrences (LSTM, GRU, plain RNN): one kernel for all steps of a sequence.

Projections of the inputs are one matmul before it; what is left of a step is the product of the
last state with the recurrent weights, and the cell. The function's attribute
``burnish.recurrence`` says which cell it is; its parameters are

- ``x [T, B, G, N]``     projected inputs, biases added, gates in the cell's order
- ``r [N / NB, H, G, NB]``  recurrent weights in panels of ``NB`` units
- ``rb [N]``             with ``after``: the recurrent bias of the candidate
- ``p [3, N]``           with ``peepholes``: factors of the cell state for gates i, f, o
- ``w [M / MB, H, 1, MB]``  with ``projected`` (LSTM): what makes states of ``P`` of ``H`` units
- ``h0 [B, H]``, ``c0 [B, H]`` (LSTM)  first states
- ``lengths [B] int32``  with ``lengths``: steps of each row; later results are zeros
- ``y [T, B, H]``, ``h [B, H]``, ``c [B, H]`` (LSTM)  results

``N`` is ``H`` rounded up to whole panels; ``T`` and ``B`` may be symbolic. With ``projected``,
``P`` stands for ``H`` in ``r``, ``h0``, ``y`` and ``h``, and ``M`` is ``P`` in whole panels.

1. A task is a panel of units and a block of rows, all gates of them: what it computes it also
   turns into states, so that a step of an LSTM is one parallel loop. A GRU that resets before
   its product has two, and so has an LSTM that projects its states. Neighbouring tasks share a
   panel, and a thread keeps its panels; with an open batch they share rows.
2. Sums of all gates stay in registers; states of a step are read from one of two buffers and
   written to the other.
3. Steps too small to pay for waking threads run on one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.target import CpuTarget

RECURRENCE = "burnish.recurrence"
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
PARALLEL_WORK = 48 * 1024
"""Multiplications of a step from which on threads share it."""

_ZERO = loops.const(0)
Activate = Callable[[Expr], Expr]


@dataclass(frozen=True)
class Cell:
    """What one step computes; ``activations`` are (name, alpha, beta), as many as the kind takes.

    ``after``: a GRU's reset gate scales the product, not its operand. ``coupled``: an LSTM's
    forget gate is 1 - i. ``clip`` limits what activations are given; 0 does not.
    """

    kind: str
    activations: tuple[tuple[str, float, float], ...]
    reverse: bool = False
    after: bool = False
    coupled: bool = False
    peepholes: bool = False
    lengths: bool = False
    clip: float = 0.0
    projected: bool = False

    def attributes(self) -> dict[str, Any]:
        """As the value of a function attribute."""
        return {
            "kind": self.kind,
            "names": [name for name, _, _ in self.activations],
            "numbers": [repr(n) for _, alpha, beta in self.activations for n in (alpha, beta)],
            "flags": [
                int(flag)
                for flag in (
                    self.reverse, self.after, self.coupled, self.peepholes, self.lengths,
                    self.projected,
                )
            ],
            "clip": repr(self.clip),
        }  # fmt: skip

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Cell:
        """From the value of the attribute."""
        info = {str(key): value for key, value in attributes.items()}
        numbers = [float(str(n)) for n in info["numbers"]]
        names = [str(name) for name in info["names"]]
        parts = zip(names, numbers[::2], numbers[1::2], strict=True)
        reverse, after, coupled, peepholes, lengths, projected = (
            bool(int(n)) for n in info["flags"]
        )
        kind, clip = str(info["kind"]), float(str(info["clip"]))
        return cls(kind, tuple(parts), reverse, after, coupled, peepholes, lengths, clip, projected)


def emit(func: tirx.PrimFunc, target: CpuTarget) -> tirx.PrimFunc | None:
    """The kernel of a recurrence, or ``None`` for any other function."""
    attrs = dict(func.attrs.items()) if func.attrs is not None else {}
    if RECURRENCE not in attrs:
        return None
    cell = Cell.of(attrs[RECURRENCE])
    body = _Recurrence(cell, list(func.params), target.lanes, target.registers, True).body()
    kept = {str(k): v for k, v in attrs.items()}
    return loops.prim_func(func.params, body, {**kept, "s_tir": True})


def plain(cell: Cell, params: list[Var], attrs: Mapping[str, Any]) -> tirx.PrimFunc:
    """The same in loops that any compiler runs, one element and one thread at a time."""
    body = _Recurrence(cell, params, 1, 16, False).body()
    return loops.prim_func(params, body, {**attrs, "s_tir": True})


class _Recurrence:
    """One kernel being written."""

    def __init__(
        self, cell: Cell, params: list[Var], lanes: int, registers: int, fast: bool
    ) -> None:
        self.cell, self.lanes, self.fast = cell, lanes, fast
        left = iter(params)
        self.x, self.r = next(left), next(left)
        self.rb = next(left) if cell.after else None
        self.p = next(left) if cell.peepholes else None
        self.w = next(left) if cell.projected else None
        self.first = [next(left)]
        if cell.kind == "LSTM":
            self.first.append(next(left))
        self.lengths = next(left) if cell.lengths else None
        self.y, *self.last = left
        self.dtype = str(self.x.dtype)
        self.registers = registers
        self.steps, self.batch = (_extent(n) for n in list(self.x.shape)[:2])
        self._take(self.r)
        self.units = int(self.y.shape[2])
        self.hidden = self.units if self.w is None else int(self.w.shape[1])
        wide = self.padded if self.w is None else int(self.w.shape[0]) * int(self.w.shape[3])
        self.states = loops.workspace([2, self.batch, wide], self.dtype, "states")
        self.cells = loops.workspace([self.batch, self.padded], self.dtype, "cells")
        self.between = loops.workspace([self.batch, self.padded], self.dtype, "between")
        self.updates = loops.workspace([self.batch, self.padded], self.dtype, "updates")
        self.acts = [activation(*act) for act in cell.activations]

    def _take(self, weights: Var) -> None:
        """What is multiplied: sums over ``depth`` of panels of ``width`` columns."""
        self.r = weights
        self.panels, self.depth, self.gates, self.width = (int(n) for n in weights.shape)
        self.padded = self.panels * self.width
        vectors = max(1, self.gates * self.width // self.lanes)
        known = loops.as_int(self.batch)
        most = max(1, min(6, (self.registers - 2 - min(vectors, 8)) // vectors))
        self.rows = most if known is None else max(1, min(most, known))

    def _projection(self, weights: Var) -> _Recurrence:
        """The second product of a step, over units instead of states."""
        part = copy.copy(self)
        part._take(weights)
        return part

    def body(self) -> Stmt:
        kept = [self.states]
        if self.cell.kind == "LSTM":
            kept.append(self.cells)
        if self._two_phases():
            kept += [self.between, self.updates]
        elif self.w is not None:
            kept.append(self.between)
        return loops.seq(
            *[loops.allocate(buffer) for buffer in kept],
            self._start(),
            loops.serial(
                self.steps,
                lambda s: loops.named(
                    lambda now: self._step(s, now), now=tirx.floormod(s, loops.const(2))
                ),
                "s",
            ),
            self._finish(),
        )

    def _two_phases(self) -> bool:
        return self.cell.kind == "GRU" and not self.cell.after

    def _each(self, units: int, body: Callable[[Expr, Expr], Stmt]) -> Stmt:
        return loops.serial(
            self.batch, lambda b: loops.serial(units, lambda j: body(b, j), "j"), "b"
        )

    def _start(self) -> Stmt:
        zero = tirx.const(0, self.dtype)
        h0 = self.first[0]
        parts = [
            self._each(self.units, lambda b, j: loops.store(self.states, h0[b, j], [_ZERO, b, j]))
        ]
        if self.cell.kind == "LSTM":
            c0, more = self.first[1], self.padded - self.hidden
            parts.append(
                self._each(self.hidden, lambda b, j: loops.store(self.cells, c0[b, j], [b, j]))
            )
            # What stands behind the last unit is computed with, though never used.
            behind = self._each(
                more, lambda b, j: loops.store(self.cells, zero, [b, j + self.hidden])
            )
            parts += [behind] * (more > 0)
        return loops.seq(*parts)

    def _finish(self) -> Stmt:
        now = tirx.floormod(self.steps, loops.const(2))

        def state(b: Expr, j: Expr) -> Stmt:
            return loops.store(self.last[0], self.states[now, b, j], [b, j])

        def memory(b: Expr, j: Expr) -> Stmt:
            return loops.store(self.last[1], self.cells[b, j], [b, j])

        parts = [self._each(self.units, state)]
        if self.cell.kind == "LSTM":
            parts.append(self._each(self.hidden, memory))
        return loops.seq(*parts)

    def _step(self, s: Expr, now: Expr) -> Stmt:
        if not self._two_phases():
            gates = range(self.gates)
            first = self._tasks(
                lambda panel, b, rows: self._tile(
                    s, now, panel, b, rows, gates, lambda b, k: self.states[now, b, k], self._last
                )
            )
            if self.w is None:
                return first
            part = self._projection(self.w)
            return loops.seq(
                first,
                part._tasks(
                    lambda panel, b, rows: part._tile(
                        s, now, panel, b, rows, range(1),
                        lambda b, k: self.between[b, k], part._projected,
                    )
                ),
            )  # fmt: skip
        return loops.seq(
            self._tasks(
                lambda panel, b, rows: self._tile(
                    s, now, panel, b, rows, range(2),
                    lambda b, k: self.states[now, b, k], self._reset,
                )
            ),
            self._tasks(
                lambda panel, b, rows: self._tile(
                    s, now, panel, b, rows, range(2, 3),
                    lambda b, k: self.between[b, k], self._candidate,
                )
            ),
        )  # fmt: skip

    def _tasks(self, tile: Callable[[Expr, Expr, int], Stmt]) -> Stmt:
        """Rule 1."""
        if self.rows == 1:
            return self._blocks(self.batch, 0, tile)
        whole, rest = loops.divide(self.batch, self.rows)
        return loops.named(lambda w, r: self._blocks(w, r, tile), whole=whole, rest=rest)

    def _blocks(
        self, whole: loops.Extent, rest: loops.Extent, tile: Callable[[Expr, Expr, int], Stmt]
    ) -> Stmt:
        """Tiles of ``whole`` blocks of rows and of ``rest`` single rows."""

        def share(blocks: loops.Extent, rows: int, first: loops.Extent) -> Stmt:
            def task(flat: Expr) -> Stmt:
                if loops.as_int(blocks) is None:
                    # No division by an open size: TVM may find that it is 0 where nothing runs.
                    block, panel = loops.split_two(flat, self.panels)
                else:
                    panel, block = loops.split_two(flat, blocks)
                return loops.named(
                    lambda panel, b: tile(panel, b, rows), panel=panel, b=block * rows + first
                )

            return self._shared(loops.product([self.panels, blocks]), rows, task)

        parts: list[Stmt] = []
        if loops.as_int(whole) != 0:
            parts.append(share(whole, self.rows, 0))
        known = loops.as_int(rest)
        if known is None:
            parts.append(share(rest, 1, whole * self.rows))
        elif known:
            parts.append(share(1, known, loops.times(whole, self.rows)))
        return loops.seq(*parts)

    def _shared(self, count: loops.Extent, rows: int, body: loops.Body) -> Stmt:
        """Rule 3. ``count`` times ``rows`` rows of one panel; open counts are 1 or more."""
        if not self.fast:
            return loops.serial(count, body, "p")
        each = self.depth * self.gates * self.width * rows
        known = loops.as_int(count)
        if known is not None:
            make = loops.serial if known * each < PARALLEL_WORK else loops.parallel
            return make(count, body)
        least, most = self.panels * each, self.panels * each * (self.rows - 1)
        if least >= PARALLEL_WORK:
            return loops.parallel(count, body)
        if rows == 1 and most < PARALLEL_WORK and self.rows > 1:
            return loops.serial(count, body)
        return loops.branch(
            count * each < PARALLEL_WORK, loops.serial(count, body), loops.parallel(count, body)
        )

    def _time(self, s: Expr, b: Expr) -> Expr:
        """Where in the sequence of row ``b`` step ``s`` is."""
        if not self.cell.reverse:
            return s
        if self.lengths is None:
            return self.steps - 1 - s
        return tirx.max(self._length(b) - 1 - s, _ZERO)

    def _length(self, b: Expr) -> Expr:
        assert self.lengths is not None
        return tirx.min(self.lengths[b].astype("int64"), self.steps)

    def _vectors(self, body: Callable[[Any], Stmt]) -> Stmt:
        if not self.fast:
            return loops.serial(self.width, body, "v")
        return loops.vectors(self.width, min(self.lanes, self.width), body)

    def _over(self, rows: int, gates: range, body: Callable[[Any, Any, Any], Stmt]) -> Stmt:
        unroll = loops.unroll if self.fast else loops.serial
        return unroll(
            rows,
            lambda i: unroll(len(gates), lambda g: self._vectors(lambda v: body(i, g, v)), "g"),
            "i",
        )

    def _tile(
        self, s: Expr, now: Expr, panel: Expr, b: Expr, rows: int, gates: range,
        operand: Callable[[Expr, Expr], Expr], cell: Callable[..., Stmt],
    ) -> Stmt:  # fmt: skip
        """Rule 2: the gates' sums of ``rows`` rows from ``b`` on, then the cell."""
        sums = loops.local([rows, len(gates), self.width], self.dtype, "sums")
        start = gates.start
        column = panel * self.width

        def begin(i: Any, g: Any, v: Any) -> Stmt:
            row = b + i
            value = self.x[self._time(s, row), row, g + start, column + v]
            if self.r is self.w:
                value = tirx.const(0, self.dtype)
            return loops.store(sums, value, [i, g, v])

        def begins() -> Stmt:
            if self.rb is None:
                return self._over(rows, gates, begin)
            # The candidate's product is kept apart from its projection.
            rb, last = self.rb, self.gates - 1
            return loops.seq(
                self._over(rows, range(last), begin),
                self._over(
                    rows,
                    range(last, last + 1),
                    lambda i, g, v: loops.store(sums, rb[column + v], [i, loops.const(last), v]),
                ),
            )

        def term(k: Expr) -> Stmt:
            return self._over(
                rows,
                gates,
                lambda i, g, v: loops.store(
                    sums,
                    sums[i, g, v] + operand(b + i, k) * self.r[panel, k, g + start, v],
                    [i, g, v],
                ),
            )

        def row(i: Any, held: Var) -> Stmt:
            at = b + i
            return loops.named(
                lambda t: self._alive(s, now, at, panel, cell(held, i, s, now, t, at, panel)),
                t=self._time(s, at),
            )

        parts = [loops.allocate(sums), begins(), loops.serial(self.depth, term, "k")]
        if rows == 1:
            return loops.seq(*parts, row(_ZERO, sums))
        # A loop over rows cannot index registers, and the cell's code for each row is long.
        held = loops.local([rows, len(gates), self.width], self.dtype, "held")
        return loops.seq(
            *parts,
            loops.allocate(held),
            self._over(rows, gates, lambda i, g, v: loops.store(held, sums[i, g, v], [i, g, v])),
            loops.serial(rows, lambda i: row(i, held), "i"),
        )

    def _alive(self, s: Expr, now: Expr, b: Expr, panel: Expr, body: Stmt) -> Stmt:
        """``body`` for rows with steps left; the others keep their states and give zeros."""
        if self.lengths is None:
            return body
        if self.w is not None and self.r is not self.w:
            return loops.branch(s < self._length(b), body, None)
        column = panel * self.width

        def kept(v: Any) -> Stmt:
            return loops.store(
                self.states, self.states[now, b, column + v], [1 - now, b, column + v]
            )

        none = loops.seq(
            self._vectors(kept), self._results(s, b, panel, lambda j: tirx.const(0, self.dtype))
        )
        return loops.branch(s < self._length(b), body, none)

    def _results(self, t: Expr, b: Expr, panel: Expr, value: Callable[[Expr], Expr]) -> Stmt:
        """Columns of a panel that are units, stored to ``y[t, b]``."""
        column = panel * self.width
        full, rest = divmod(self.units, self.width)

        def put(v: Any) -> Stmt:
            return loops.store(self.y, value(column + v), [t, b, column + v])

        def some(width: int) -> Stmt:
            if not self.fast:
                return loops.serial(width, put, "v")
            return loops.vectors(width, min(self.lanes, width), put)

        if not rest:
            return some(self.width)
        if not full:
            return some(rest)
        return loops.branch(panel < full, some(self.width), some(rest))

    def _clipped(self, value: Expr) -> Expr:
        limit = self.cell.clip
        if limit <= 0:
            return value
        high = tirx.const(limit, self.dtype)
        return tirx.max(tirx.min(value, high), tirx.const(-limit, self.dtype))

    def _gate(self, act: Activate, value: Expr) -> Expr:
        return act(self._clipped(value))

    def _publish(self, now: Expr, t: Expr, b: Expr, panel: Expr) -> Stmt:
        return self._results(t, b, panel, lambda j: self.states[1 - now, b, j])

    def _last(self, sums: Var, i: Expr, s: Expr, now: Expr, t: Expr, b: Expr, panel: Expr) -> Stmt:
        """Gates' sums to new states."""
        column = panel * self.width
        make = {"LSTM": self._lstm, "GRU": self._gru_after, "RNN": self._rnn}[self.cell.kind]
        states = make(sums, i, now, t, b, panel, column)
        if self.w is not None:
            return states
        return loops.seq(states, self._publish(now, t, b, panel))

    def _projected(
        self, sums: Var, i: Expr, s: Expr, now: Expr, t: Expr, b: Expr, panel: Expr
    ) -> Stmt:
        column = panel * self.width
        return loops.seq(
            self._vectors(
                lambda v: loops.store(self.states, sums[i, 0, v], [1 - now, b, column + v])
            ),
            self._publish(now, t, b, panel),
        )

    def _rnn(self, sums: Var, i: Expr, now: Expr, t: Expr, b: Expr, _p: Expr, at: Expr) -> Stmt:
        return self._vectors(
            lambda v: loops.store(
                self.states, self._gate(self.acts[0], sums[i, 0, v]), [1 - now, b, at + v]
            )
        )

    def _gru_after(
        self, sums: Var, i: Expr, now: Expr, t: Expr, b: Expr, _p: Expr, at: Expr
    ) -> Stmt:
        """Order of gates z, r, h."""
        sigmoid, tanh = self.acts

        def put(g: int, value: Callable[[Any], Expr]) -> Stmt:
            return self._vectors(lambda v: loops.store(sums, value(v), [i, g, v]))

        return loops.seq(
            put(0, lambda v: self._gate(sigmoid, sums[i, 0, v])),
            put(1, lambda v: self._gate(sigmoid, sums[i, 1, v])),
            put(
                2,
                lambda v: self._gate(tanh, self.x[t, b, 2, at + v] + sums[i, 1, v] * sums[i, 2, v]),
            ),
            self._vectors(lambda v: self._mixed(now, b, at + v, sums[i, 0, v], sums[i, 2, v])),
        )

    def _mixed(self, now: Expr, b: Expr, j: Expr, z: Expr, new: Expr) -> Stmt:
        one = tirx.const(1, self.dtype)
        value = (one - z) * new + z * self.states[now, b, j]
        return loops.store(self.states, value, [1 - now, b, j])

    def _reset(self, sums: Var, i: Expr, s: Expr, now: Expr, t: Expr, b: Expr, panel: Expr) -> Stmt:
        sigmoid, at = self.acts[0], panel * self.width
        return loops.seq(
            self._vectors(
                lambda v: loops.store(self.updates, self._gate(sigmoid, sums[i, 0, v]), [b, at + v])
            ),
            self._vectors(
                lambda v: loops.store(
                    self.between,
                    self._gate(sigmoid, sums[i, 1, v]) * self.states[now, b, at + v],
                    [b, at + v],
                )
            ),
        )

    def _candidate(
        self, sums: Var, i: Expr, s: Expr, now: Expr, t: Expr, b: Expr, panel: Expr
    ) -> Stmt:
        tanh, at = self.acts[1], panel * self.width
        return loops.seq(
            self._vectors(lambda v: loops.store(sums, self._gate(tanh, sums[i, 0, v]), [i, 0, v])),
            self._vectors(
                lambda v: self._mixed(now, b, at + v, self.updates[b, at + v], sums[i, 0, v])
            ),
            self._publish(now, t, b, panel),
        )

    def _lstm(self, sums: Var, i: Expr, now: Expr, t: Expr, b: Expr, _p: Expr, at: Expr) -> Stmt:
        """Order of gates i, o, f, c."""
        gate, tanh, last = self.acts
        one = tirx.const(1, self.dtype)

        def put(g: int, value: Callable[[Any], Expr]) -> Stmt:
            return self._vectors(lambda v: loops.store(sums, value(v), [i, g, v]))

        def peek(value: Expr, which: int, v: Any) -> Expr:
            if self.p is None:
                return value
            return value + self.p[which, at + v] * self.cells[b, at + v]

        def made(v: Any, value: Expr) -> Stmt:
            if self.w is not None:
                return loops.store(self.between, value, [b, at + v])
            return loops.store(self.states, value, [1 - now, b, at + v])

        def forget(v: Any) -> Expr:
            if self.cell.coupled:
                return one - sums[i, 0, v]
            return self._gate(gate, peek(sums[i, 2, v], 1, v))

        return loops.seq(
            put(0, lambda v: self._gate(gate, peek(sums[i, 0, v], 0, v))),
            put(2, forget),
            put(3, lambda v: self._gate(tanh, sums[i, 3, v])),
            self._vectors(
                lambda v: loops.store(
                    self.cells,
                    sums[i, 2, v] * self.cells[b, at + v] + sums[i, 0, v] * sums[i, 3, v],
                    [b, at + v],
                )
            ),
            put(1, lambda v: self._gate(gate, peek(sums[i, 1, v], 2, v))),
            self._vectors(lambda v: made(v, sums[i, 1, v] * last(self.cells[b, at + v]))),
        )


def _extent(value: Any) -> loops.Extent:
    known = loops.as_int(value)
    return value if known is None else known


def activation(name: str, alpha: float, beta: float) -> Activate:
    """ONNX's activation functions of recurrent operators."""

    def number(value: float, like: Expr) -> Expr:
        return tirx.const(value, str(like.ty.dtype))

    def zero(x: Expr) -> Expr:
        return number(0, x)

    def one(x: Expr) -> Expr:
        return number(1, x)

    def hard_sigmoid(x: Expr) -> Expr:
        line = x * number(alpha, x) + number(beta, x)
        return tirx.max(tirx.min(line, one(x)), zero(x))

    def negative(make: Activate) -> Activate:
        return lambda x: tirx.Select(x < zero(x), make(x), x)

    known: dict[str, Activate] = {
        "Affine": lambda x: x * number(alpha, x) + number(beta, x),
        "Elu": negative(lambda x: number(alpha, x) * (tirx.exp(x) - one(x))),
        "HardSigmoid": hard_sigmoid,
        "LeakyRelu": negative(lambda x: number(alpha, x) * x),
        "Relu": lambda x: tirx.max(x, zero(x)),
        "ScaledTanh": lambda x: number(alpha, x) * tirx.tanh(number(beta, x) * x),
        "Sigmoid": tirx.sigmoid,
        "Softplus": lambda x: tirx.max(x, zero(x)) + tirx.log(one(x) + tirx.exp(-tirx.abs(x))),
        "Softsign": lambda x: x / (one(x) + tirx.abs(x)),
        "Tanh": tirx.tanh,
        "ThresholdedRelu": lambda x: tirx.Select(x > number(alpha, x), x, zero(x)),
    }
    return known[name]


ACTIVATIONS = (
    "Affine", "Elu", "HardSigmoid", "LeakyRelu", "Relu", "ScaledTanh", "Sigmoid", "Softplus",
    "Softsign", "Tanh", "ThresholdedRelu",
)  # fmt: skip
