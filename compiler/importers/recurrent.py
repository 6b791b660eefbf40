"""One direction of a recurrent layer: a matmul over all steps, then one kernel for the recurrence.

What the importers share. Weights that are known at import are put into the kernel's form now;
those that are not, by operators at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, tirx

from burnish.passes.recurrence import call_recurrence, panel_width
from burnish.targets.recurrence_form import GATES, Cell

op = relax.op

Operand = Any
"""A NumPy array where it is known at import, else a Relax expression."""
Stored = Callable[[Operand, str], relax.Expr]
"""An array as a weight of the module, by its part: w, r, bias, after, peepholes, projection."""


@dataclass(frozen=True)
class Direction:
    """Weights of one direction, gates in the kernel's order; ``S`` is ``H``, or ``P`` if projected.

    ``w [G * H, I]``, ``r [G * H, S]``, ``bias [2, G * H]`` (of the inputs, of the states),
    ``peepholes [3, H]`` (of i, f, o), ``projection [P, H]``, and the first states ``[B, S]``, of
    an LSTM ``[B, H]`` too.
    """

    w: Operand
    r: Operand
    bias: Operand | None
    first: Sequence[relax.Expr]
    peepholes: Operand | None = None
    projection: Operand | None = None


class Layer:
    """What the directions of a layer of ``units`` share: ``x [T, B, I]`` and the panels."""

    def __init__(
        self,
        bb: relax.BlockBuilder,
        kind: str,
        x: relax.Var,
        units: int,
        lengths: relax.Expr | None = None,
    ) -> None:
        self.bb, self.kind, self.x, self.units, self.lengths = bb, kind, x, units, lengths
        self.gates, self.dtype = GATES[kind], str(x.ty.dtype)
        self.steps, self.batch = list(x.ty.shape)[:2]
        self.batches = int(self.batch) if isinstance(self.batch, (int, tirx.IntImm)) else None
        self.width = panel_width(kind, units, self.batches)
        self.panels = -(-units // self.width)
        self.padded = self.panels * self.width

    def emit(self, expr: relax.Expr) -> relax.Var:
        return self.bb.emit(expr)

    def run(self, cell: Cell, part: Direction, stored: Stored) -> list[relax.Var]:
        """``[y [T, B, S], h [B, S]]``, of an LSTM ``c [B, H]`` too."""
        emit = self.emit
        w = stored(self._columns(self._gates(part.w)), "w")
        x = emit(op.matmul(self.x, emit(op.permute_dims(w))))
        bias, apart = self._bias(cell, part.bias)
        if bias is not None:
            x = emit(op.add(x, stored(bias, "bias")))
        sizes = [self.steps, self.batch, self.gates, self.padded]
        x = emit(op.reshape(x, relax.ShapeExpr(sizes)))
        r = self.shaped(self._gates(part.r), [self.gates, self.panels, self.width, -1])
        operands = [x, stored(self.turned(r, [1, 3, 0, 2]), "r")]
        if cell.after:
            operands.append(stored(apart, "after"))
        if cell.peepholes:
            operands.append(stored(self.padded_to(part.peepholes, 1, self.padded), "peepholes"))
        if cell.projected:
            operands.append(stored(self._projection(part.projection), "projection"))
        operands += part.first
        if self.lengths is not None:
            operands.append(self.lengths)
        made = emit(call_recurrence(self.bb, cell, operands))
        count = 3 if self.kind == "LSTM" else 2
        return [emit(relax.TupleGetItem(made, i)) for i in range(count)]

    def zeros(self) -> relax.Var:
        """States that nothing is given for."""
        return self.emit(op.zeros(relax.ShapeExpr([self.batch, self.units]), self.dtype))

    def _projection(self, value: Operand) -> Operand:
        """``[P, H] -> [M / MB, H, 1, MB]``."""
        outputs, units = (int(n) for n in _shape(value))
        width = panel_width("RNN", outputs, self.batches)
        panels = -(-outputs // width)
        value = self.padded_to(value, 0, panels * width)
        value = self.turned(self.shaped(value, [panels, width, units]), [0, 2, 1])
        return self.shaped(value, [panels, units, 1, width])

    def _bias(self, cell: Cell, both: Operand | None) -> tuple[Operand | None, Operand | None]:
        """Of all gates together ``[G * N]``, and of a GRU's candidate that is reset after it."""
        if both is None:
            return None, np.zeros(self.padded, self.dtype) if cell.after else None
        both = self.shaped(both, [2, self.gates, self.units])
        first, second = (self.row(both, i) for i in range(2))
        apart = None
        if cell.after:
            apart = self.padded_to(self.row(second, self.gates - 1), 0, self.padded)
            keep = np.ones((self.gates, 1), self.dtype)
            keep[-1] = 0
            second = self._binary(second, keep, np.multiply, op.multiply)
        total = self.padded_to(self._binary(first, second, np.add, op.add), 1, self.padded)
        return self.shaped(total, [self.gates * self.padded]), apart

    # What follows computes on arrays at import, on expressions at run time.

    def _gates(self, value: Operand) -> Operand:
        """``[G * H, K] -> [G, N, K]``."""
        return self.padded_to(self.shaped(value, [self.gates, self.units, -1]), 1, self.padded)

    def _columns(self, value: Operand) -> Operand:
        return self.shaped(value, [self.gates * self.padded, -1])

    def row(self, value: Operand, index: int) -> Operand:
        """One index of the first axis."""
        if isinstance(value, np.ndarray):
            return value[index]
        part = op.strided_slice(value, [0], [index], [index + 1], assume_inbound=True)
        return self.emit(op.squeeze(self.emit(part), [0]))

    def picked(self, value: Operand, order: Sequence[int]) -> Operand:
        """Rows of the first axis in another order."""
        if isinstance(value, np.ndarray):
            return value[list(order)]
        rows = relax.const(np.array(order), "int64")
        return self.emit(op.take(value, rows, axis=0, mode="clip"))

    def padded_to(self, value: Operand, axis: int, size: int) -> Operand:
        """Zeros behind what an axis holds."""
        more = size - int(_shape(value)[axis])
        if not more:
            return value
        rank = len(_shape(value))
        if isinstance(value, np.ndarray):
            return np.pad(value, [(0, more if a == axis else 0) for a in range(rank)])
        return self.emit(
            op.nn.pad(value, [n for a in range(rank) for n in (0, more if a == axis else 0)])
        )

    def shaped(self, value: Operand, shape: Sequence[int]) -> Operand:
        if isinstance(value, np.ndarray):
            return value.reshape(shape)
        return self.emit(op.reshape(value, list(shape)))

    def turned(self, value: Operand, axes: list[int]) -> Operand:
        if isinstance(value, np.ndarray):
            return np.ascontiguousarray(value.transpose(axes))
        return self.emit(op.permute_dims(value, axes))

    def stacked(self, values: Sequence[Operand]) -> Operand:
        """Side by side, along a new first axis."""
        if all(isinstance(value, np.ndarray) for value in values):
            return np.stack(values)
        rows = [self.shaped(value, [1, *map(int, _shape(value))]) for value in values]
        return self.emit(op.concat([expression(row) for row in rows], 0))

    def _binary(self, a: Operand, b: Operand, known: Any, make: Any) -> Operand:
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return known(a, b)
        return self.emit(make(expression(a), expression(b)))


def expression(value: Operand) -> relax.Expr:
    """An array as a constant."""
    return relax.const(value, str(value.dtype)) if isinstance(value, np.ndarray) else value


def _shape(value: Operand) -> Sequence[Any]:
    return value.shape if isinstance(value, np.ndarray) else list(value.ty.shape)


__all__ = ["Direction", "Layer", "Operand", "Stored", "expression"]
