"""A body that runs once for each index of an axis: a state goes on, rows are read and given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from burnish.compiler.importers import repeat
from burnish.compiler.importers.unsupported import Refused

op = relax.op

Step = Callable[[list[Any], list[relax.Expr]], tuple[list[Any], list[relax.Expr]]]
"""State and what is read -> next state, and the rows that this step gives."""


@dataclass(frozen=True)
class Scanned:
    """A tensor of which each step reads one index of ``axis``, the last first if ``backwards``."""

    value: relax.Expr
    axis: int = 0
    backwards: bool = False


def scan(
    bb: relax.BlockBuilder,
    body: Step,
    states: Sequence[Any],
    inputs: Sequence[Scanned],
    size: Any,
    nodes: int,
) -> tuple[list[Any], list[relax.Expr]]:
    """``size`` steps of a body of so many nodes; rows are stacked along a new first axis.

    Few steps are written out, more are functions. An open ``size`` is an expression of sizes: then
    each step writes its row into a tensor of that many rows.
    """
    if not isinstance(size, int):
        return _open(bb, body, states, inputs, size)
    if not repeat.few(size, nodes):
        return _many(bb, body, states, inputs, size)
    state = list(states)
    stacks: list[list[relax.Expr]] = []
    for step in range(size):
        read = [_at(bb, s.value, size - 1 - step if s.backwards else step, s.axis) for s in inputs]
        state, rows = body(state, read)
        stacks.append(rows)
    return state, [stacked(bb, list(column)) for column in zip(*stacks, strict=True)]


def stacked(bb: relax.BlockBuilder, rows: list[relax.Expr]) -> relax.Expr:
    """Rows of one shape as one tensor."""
    if not all(isinstance(row.ty, relax.TensorType) for row in rows):
        raise Refused("the rows it gives are no tensors")
    if any(not repeat.same_type(row.ty, rows[0].ty) for row in rows):
        raise Refused("the rows it gives have different shapes")
    return bb.emit(op.stack(rows, 0))


def index(value: int) -> relax.Expr:
    """A scalar of int64."""
    return relax.const(np.array(value, np.int64), "int64")


def scalar_of(bb: relax.BlockBuilder, size: Any) -> relax.Expr:
    """A size, or an expression of sizes, as a scalar of int64."""
    return bb.emit(op.reshape(bb.emit(op.shape_to_tensor(relax.ShapeExpr([size]))), []))


def _at(bb: relax.BlockBuilder, value: relax.Expr, place: int, axis: int) -> relax.Expr:
    part = op.strided_slice(value, [axis], [place], [place + 1], assume_inbound=True)
    return bb.emit(op.squeeze(bb.emit(part), [axis]))


def _read(
    bb: relax.BlockBuilder, inputs: Sequence[Scanned], step: relax.Expr, last: relax.Expr
) -> list[relax.Expr]:
    read = []
    for s in inputs:
        place = bb.emit(op.subtract(last, step)) if s.backwards else step
        read.append(bb.emit(op.take(s.value, place, axis=s.axis, mode="clip")))
    return read


def _many(
    bb: relax.BlockBuilder, body: Step, states: Sequence[Any], inputs: Sequence[Scanned], size: int
) -> tuple[list[Any], list[relax.Expr]]:
    def one(state: list[relax.Expr]) -> tuple[list[relax.Expr], list[relax.Expr]]:
        after, rows = body(state[1:], _read(bb, inputs, state[0], index(size - 1)))
        given = [bb.emit(op.expand_dims(row, 0)) for row in rows]
        return [bb.emit(op.add(state[0], index(1))), *after], given

    state, given = repeat.repeat(bb, one, [index(0), *states], size)
    return state[1:], given


def _open(
    bb: relax.BlockBuilder, body: Step, states: Sequence[Any], inputs: Sequence[Scanned], size: Any
) -> tuple[list[Any], list[relax.Expr]]:
    end = scalar_of(bb, size)
    last = bb.emit(op.subtract(end, index(1)))
    places = bb.emit(op.arange(relax.prim_value(size), dtype="int64"))
    count = len(states)
    types = _rows_of(bb, body, states, inputs, last)

    def one(state: list[relax.Expr]) -> tuple[list[relax.Expr], list[relax.Expr]]:
        step = state[1]
        after, rows = body(state[2 : 2 + count], _read(bb, inputs, step, last))
        following = bb.emit(op.add(step, index(1)))
        here = bb.emit(op.equal(places, step))
        written = [
            _written(bb, full, row, here)
            for full, row in zip(state[2 + count :], rows, strict=True)
        ]
        return [bb.emit(op.less(following, end)), following, *after, *written], []

    empty = [bb.emit(op.zeros(relax.ShapeExpr([size, *ty.shape]), str(ty.dtype))) for ty in types]
    begin = [bb.emit(op.less(index(0), end)), index(0), *states, *empty]
    state = repeat.repeat_while(bb, one, begin)[2:]
    return state[:count], state[count:]


def _rows_of(
    bb: relax.BlockBuilder,
    body: Step,
    states: Sequence[Any],
    inputs: Sequence[Scanned],
    last: relax.Expr,
) -> list[Any]:
    """The types of the rows, from a step that nothing reads."""
    _, rows = body(list(states), _read(bb, inputs, index(0), last))
    return [row.ty for row in rows]


def _written(
    bb: relax.BlockBuilder, full: relax.Expr, row: relax.Expr, here: relax.Expr
) -> relax.Expr:
    """``full [N, ..]`` with the row where ``here [N]`` is true."""
    rank = int(row.ty.ndim)
    if rank:
        here = bb.emit(op.expand_dims(here, list(range(1, 1 + rank))))
    return bb.emit(op.where(here, bb.emit(op.expand_dims(row, 0)), full))
