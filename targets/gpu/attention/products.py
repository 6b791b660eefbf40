"""The two products of a block of keys: scores, and what their powers have of the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets.attention_form import LEAST, as_float32, wide
from burnish.targets.cpu import loops
from burnish.targets.gpu.attention.block import ACROSS
from burnish.targets.gpu.attention.held import ZERO, Held, ItemRows, or_zero
from burnish.targets.gpu.launch import i32, unroll


def score(held: Held, where: ItemRows, first: Any) -> Stmt:
    """A tile of scores, masked, to local memory."""
    attention, sizes, block = held.attention, held.sizes, held.block
    wide_tile = block.keys // held.across
    down, across = tirx.floordiv(where.item, held.across), tirx.floormod(where.item, held.across)
    dots = loops.local((held.tall, wide_tile), "float32", "dots")

    def row(i: Any) -> Expr:
        return i * held.down + down

    def column(j: Any) -> Expr:
        return j * held.across + across

    def each(body: Callable[[Any, Any], Stmt]) -> Stmt:
        return unroll(held.tall, lambda i: unroll(wide_tile, lambda j: body(i, j)))

    def key_at(j: Any, d: Any) -> Expr:
        if not block.direct:
            return held.tile.at(column(j), d)
        # One past the end is read as the last: its score is hidden.
        key = tirx.min(wide(first) + column(j), wide(sizes.keys) - 1)
        return as_float32(attention.k[(wide(where.batch), key, wide(where.head), wide(d))])

    def term(d: Any) -> Stmt:
        return each(
            lambda i, j: loops.store(
                dots, dots[(i, j)] + held.rows.at(row(i), d) * key_at(j, d), [i, j]
            )
        )

    def give(i: Any, j: Any) -> Stmt:
        key = wide(first) + column(j)
        query, head = where.query(row(i), sizes)
        exists = tirx.all(where.exists(row(i)), key < wide(sizes.keys))
        value = attention.masked(dots[(i, j)], where.batch, head, query, key)
        return held.scores.put(row(i), column(j), tirx.if_then_else(exists, value, LEAST))

    return loops.seq(
        loops.allocate(dots),
        each(lambda i, j: loops.store(dots, ZERO, [i, j])),
        loops.serial(i32(sizes.depth), term, "d"),
        each(give),
    )


def mix(held: Held, where: ItemRows, first: Any) -> Stmt:
    """Sums shrunk to the new maximum, and the powers' share of the values added."""
    attention, sizes, block = held.attention, held.sizes, held.block
    down, column, split = held.place(where)
    stride = held.across if held.splits == 1 else 0

    def row(i: Any) -> Expr:
        return i * held.down + down

    def value(t: Any, j: Any) -> Expr:
        at = column + j * stride
        inside = at < sizes.values
        if not block.direct:
            found = held.tile.at(t, at)
            return found if sizes.values % ACROSS == 0 else or_zero(inside, found)
        key = wide(first) + t
        found = as_float32(attention.v[(wide(where.batch), key, wide(where.head), wide(at))])
        return or_zero(tirx.all(inside, key < wide(sizes.keys)), found)

    def term(at: Any) -> Stmt:
        t = at * held.splits + split
        put = held.each(
            lambda i, j: loops.store(
                held.mixed, held.mixed[(i, j)] + held.scores.at(row(i), t) * value(t, j), [i, j]
            )
        )
        return put if block.keys % held.splits == 0 else loops.branch(t < block.keys, put)

    shrink = held.each(
        lambda i, j: loops.store(
            held.mixed, held.mixed[(i, j)] * held.shrink.at(row(i), i32(0)), [i, j]
        )
    )
    body = loops.seq(shrink, loops.serial(i32(-(-block.keys // held.splits)), term, "t"))
    used = held.splits * sizes.values
    if held.splits == 1 or used == block.items:
        return body
    return loops.branch(where.item < used, body)


__all__ = ["mix", "score"]
