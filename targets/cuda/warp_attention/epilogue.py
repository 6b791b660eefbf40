"""Sums to means, and to the output; joined first where warps shared out the keys."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets import attention_form as form
from burnish.targets.attention_form import wide
from burnish.targets.cpu import loops
from burnish.targets.cuda.fragments import SIZE, WARP, element_c
from burnish.targets.cuda.warp_attention.held import Held, of_row
from burnish.targets.gpu.attention_rows import BlockRows
from burnish.targets.gpu.launch import i32, unroll


def finish(held: Held, where: BlockRows) -> Stmt:
    """After the last tile of keys."""
    block = held.block
    sums = block.across(held.share, lambda a, b: a + b, held.other)
    if held.tile.warps[1] == 1:
        return loops.seq(sums, block.each(lambda w, lane: _written(held, where, w, lane)))
    return loops.seq(
        sums,
        block.each(lambda w, lane: _tell(held, w, lane)),
        block.barrier(),
        block.each(lambda w, lane: _agree(held, w, lane)),
        block.barrier(),
        block.each(lambda w, lane: _joined(held, where, w, lane)),
    )


def _give(held: Held, where: BlockRows, row: Any, column: Any, mean: Expr) -> Stmt:
    query, head = where.query(row, held.sizes)
    inside = where.exists(row)
    if held.values != held.sizes.values:
        inside = tirx.all(inside, column < held.sizes.values)
    index = [wide(where.batch), query, head, wide(column)]
    value = mean.astype(held.sizes.dtype)
    return loops.branch(inside, loops.store(held.attention.out, value, index))


def _written(held: Held, where: BlockRows, warp: Any, lane: Any) -> Stmt:
    """Straight from registers, by warps that saw all keys."""

    def one(p: Any, c: Any, e: Any) -> Stmt:
        down, along = element_c(lane, e)
        total = held.mixed.at(warp, lane, held.sum_at(p, c, e))
        mean = total * held.share.at(warp, lane, of_row(p, e))
        return _give(held, where, held.row(p)(warp) + down, c * SIZE + along, mean)

    def inverse(e: Any) -> Stmt:
        value = form.quotient(tirx.const(1.0, "float32"), held.share.at(warp, lane, e))
        return held.share.put(warp, lane, e, value)

    return loops.seq(unroll(held.share.held, inverse), held.each_sum(one))


def _place(held: Held, warp: Any, row: Any, part: Any = None) -> Any:
    """Row of what a warp's part of the keys gives to a row of the block."""
    part = tirx.floormod(warp, held.tile.warps[1]) if part is None else part
    return part * held.tile.rows + row


def _row_of(held: Held, warp: Any, lane: Any, e: Any) -> Any:
    """Row of the block that register ``e`` of those with one number a row is of."""
    piece = held.row(tirx.floordiv(e, 2))(warp)
    return piece + tirx.floormod(e, 2) * 8 + tirx.floordiv(lane, 4)


def _tell(held: Held, warp: Any, lane: Any) -> Stmt:
    """A warp's largest scores and sums of powers, for the others."""

    def one(e: Any) -> Stmt:
        place = _place(held, warp, _row_of(held, warp, lane, e))
        return loops.seq(
            held.tops.put(place, 0, held.top.at(warp, lane, e)),
            held.sums.put(place, 0, held.share.at(warp, lane, e)),
        )

    return loops.branch(tirx.floormod(lane, 4).equal(0), unroll(held.top.held, one))


def _agree(held: Held, warp: Any, lane: Any) -> Stmt:
    """Sums of this warp's keys under the largest score of all."""
    split = held.tile.warps[1]

    def factor(e: Any) -> Stmt:
        row = _row_of(held, warp, lane, e)
        places = [_place(held, warp, row, part) for part in range(split)]
        top: Any = held.tops.at(places[0], 0)
        for place in places[1:]:
            top = tirx.max(top, held.tops.at(place, 0))
        weight: Any = tirx.const(0.0, "float32")
        largest = form.finite(held.new.at(warp, lane, e))
        for place in places:
            weight = weight + held.sums.at(place, 0) * form.power(held.tops.at(place, 0), largest)
        mine = form.power(held.top.at(warp, lane, e), largest)
        return loops.seq(
            held.new.put(warp, lane, e, top),
            held.share.put(warp, lane, e, weight),
            held.other.put(warp, lane, e, form.quotient(mine, held.share.at(warp, lane, e))),
        )

    def part(p: Any, c: Any, e: Any) -> Stmt:
        value = held.mixed.at(warp, lane, held.sum_at(p, c, e))
        mean = value * held.other.at(warp, lane, of_row(p, e))
        down, along = element_c(lane, e)
        place = _place(held, warp, held.row(p)(warp) + down)
        return held.parts.put(place, c * SIZE + along, mean)

    return loops.seq(unroll(held.top.held, factor), held.each_sum(part))


def _joined(held: Held, where: BlockRows, warp: Any, lane: Any) -> Stmt:
    """The warps' means added up, by all threads."""
    threads = held.block.warps * WARP

    def one(at: Any) -> Stmt:
        flat = at * threads + warp * WARP + lane
        row, column = tirx.floordiv(flat, held.values), tirx.floormod(flat, held.values)
        mean: Any = held.parts.at(_place(held, warp, row, 0), column)
        for part in range(1, held.tile.warps[1]):
            mean = mean + held.parts.at(_place(held, warp, row, part), column)
        return _give(held, where, row, column, mean)

    return loops.serial(i32(held.tile.rows * held.values // threads), one, "turn")


__all__ = ["finish"]
