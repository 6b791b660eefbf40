"""Sums of a row's segments and of the parts of keys, and their quotients to memory."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets.attention_form import quotient, wide
from burnish.targets.cpu import loops
from burnish.targets.gpu.attention.held import ZERO, Held, ItemRows
from burnish.targets.gpu.launch import barrier, i32, unroll


def finish(held: Held, where: ItemRows) -> Stmt:
    """After the last block of keys."""
    row, segment = held.segment(where)
    give = held.with_row(where, held.sums.put(row, segment, held.share[(i32(0),)]))
    add = _weights(held, where)
    down, column, _ = held.place(where)
    if held.splits == 1:

        def written(i: Any, j: Any) -> Stmt:
            at = column + j * held.across
            return _put(held, where, i * held.down + down, at, held.mixed[(i, j)])

        return loops.seq(give, barrier(), add, barrier(), held.each(written))
    spread = unroll(
        held.block.rows, lambda i: held.spread.put(where.item, i, held.mixed[(i, i32(0))])
    )
    return loops.seq(give, spread, barrier(), add, barrier(), _gathered(held, where))


def _weights(held: Held, where: ItemRows) -> Stmt:
    """The sum of a row's powers, by the first of its items."""
    row, segment = held.segment(where)
    at0 = i32(0)
    total = held.value[(at0,)]
    add = loops.seq(
        loops.store(held.value, ZERO, [at0]),
        loops.serial(
            i32(held.segments),
            lambda s: loops.store(held.value, total + held.sums.at(row, s), [at0]),
            "s",
        ),
        loops.branch(segment.equal(0), held.weight.put(row, at0, total)),
    )
    return held.with_row(where, add)


def _gathered(held: Held, where: ItemRows) -> Stmt:
    """A column an item: what the parts of keys gave to it."""
    values = held.sizes.values

    def gathered(i: Any) -> Stmt:
        whole: Any = held.spread.at(where.item, i)
        for split in range(1, held.splits):
            whole = whole + held.spread.at(where.item + split * values, i)
        return _put(held, where, i, where.item, whole)

    return loops.branch(where.item < values, unroll(held.block.rows, gathered))


def _put(held: Held, where: ItemRows, row: Any, column: Any, value: Expr) -> Stmt:
    out = held.attention.out
    query, head = where.query(row, held.sizes)
    mean = quotient(value, held.weight.at(row, i32(0)))
    mean = mean if str(out.dtype) == "float32" else mean.astype(str(out.dtype))
    index = [wide(where.batch), query, head, wide(column)]
    inside = tirx.all(where.exists(row), column < held.sizes.values)
    return loops.branch(inside, loops.store(out, mean, index))


__all__ = ["finish"]
