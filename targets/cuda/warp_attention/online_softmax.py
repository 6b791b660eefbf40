"""A tile's scores to powers, under the largest score of each row so far.

After Milakov and Gimelshein, arXiv:1805.02867: when the largest grows, what was summed shrinks.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx import Stmt

from burnish.targets import attention_form as form
from burnish.targets.attention_form import wide
from burnish.targets.cpu import loops
from burnish.targets.cuda.fragments import element_c
from burnish.targets.cuda.warp_attention.held import Held, of_row
from burnish.targets.gpu.attention_rows import BlockRows
from burnish.targets.gpu.launch import i32, unroll


def online_softmax(held: Held, where: BlockRows, first: Any) -> Stmt:
    """Of the tile that begins with the key ``first``."""
    block = held.block
    return loops.seq(
        block.each(lambda w, lane: _masked(held, where, first, w, lane)),
        block.each(lambda w, lane: _tops(held, w, lane)),
        block.across(held.new, tirx.max, held.other),
        block.each(lambda w, lane: _rescaled(held, w, lane)),
    )


def _masked(held: Held, where: BlockRows, first: Any, warp: Any, lane: Any) -> Stmt:
    """Scores scaled; with the bias, and hidden ones ``-inf``, in tiles that have such."""
    attention, sizes, tile = held.attention, held.sizes, held.tile
    scale = tirx.const(attention.scale, "float32")

    def scaled(p: Any, j: Any, e: Any) -> Stmt:
        at = held.score_at(p, j, e)
        return held.scores.put(warp, lane, at, held.scores.at(warp, lane, at) * scale)

    def hidden(p: Any, j: Any, e: Any) -> Stmt:
        at = held.score_at(p, j, e)
        down, along = element_c(lane, e)
        row = held.row(p)(warp) + down
        key = wide(first) + held.key(j)(warp) + along
        query, head = where.query(row, sizes)
        exists = key < wide(sizes.keys)
        if attention.bias is not None:
            exists = tirx.all(exists, where.exists(row))
        value = attention.masked(held.scores.at(warp, lane, at), where.batch, head, query, key)
        return held.scores.put(warp, lane, at, tirx.if_then_else(exists, value, form.LEAST))

    every = held.each_score(scaled)
    mask = held.each_score(hidden)
    if attention.bias is not None:
        return loops.seq(every, mask)
    known = loops.as_int(sizes.keys)
    conditions = []
    if known is None or known % tile.keys:
        conditions.append(wide(first) + tile.keys > wide(sizes.keys))
    if attention.causal:
        query, _ = where.query(i32(0), sizes)
        conditions.append(wide(first) + (tile.keys - 1) > attention.last_key(query))
    if not conditions:
        return every
    return loops.seq(every, loops.branch(tirx.any(*conditions), mask))


def _tops(held: Held, warp: Any, lane: Any) -> Stmt:
    """The largest of a thread's scores of each row, and of tiles before."""
    new = held.new

    def one(p: Any, j: Any, e: Any) -> Stmt:
        at = of_row(p, e)
        score = held.scores.at(warp, lane, held.score_at(p, j, e))
        return new.put(warp, lane, at, tirx.max(new.at(warp, lane, at), score))

    keep = unroll(held.top.held, lambda e: new.put(warp, lane, e, held.top.at(warp, lane, e)))
    return loops.seq(keep, held.each_score(one))


def _rescaled(held: Held, warp: Any, lane: Any) -> Stmt:
    """Scores to powers; sums as if the maximum had been the new one all along."""
    dtype = held.sizes.dtype

    def shrink(e: Any) -> Stmt:
        top = form.finite(held.new.at(warp, lane, e))
        return loops.seq(
            held.other.put(warp, lane, e, form.power(held.top.at(warp, lane, e), top)),
            held.top.put(warp, lane, e, held.new.at(warp, lane, e)),
            held.new.put(warp, lane, e, top),
            held.share.put(
                warp, lane, e, held.share.at(warp, lane, e) * held.other.at(warp, lane, e)
            ),
        )

    def power(p: Any, j: Any, e: Any) -> Stmt:
        at, row = held.score_at(p, j, e), of_row(p, e)
        value = form.power(held.scores.at(warp, lane, at), held.new.at(warp, lane, row))
        total = held.share.at(warp, lane, row) + held.scores.at(warp, lane, at)
        return loops.seq(
            held.scores.put(warp, lane, at, value),
            held.share.put(warp, lane, row, total),
            held.powers.put(warp, lane, at, held.scores.at(warp, lane, at).astype(dtype)),
        )

    def rescale(p: Any, c: Any, e: Any) -> Stmt:
        at = held.sum_at(p, c, e)
        value = held.mixed.at(warp, lane, at) * held.other.at(warp, lane, of_row(p, e))
        return held.mixed.put(warp, lane, at, value)

    return loops.seq(unroll(held.top.held, shrink), held.each_score(power), held.each_sum(rescale))


__all__ = ["online_softmax"]
