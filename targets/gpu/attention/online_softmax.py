"""A block's scores to powers, under the largest score of each row so far.

After Milakov and Gimelshein, arXiv:1805.02867. Items share a row: each has every
``segments``-th key. There is a barrier between the two steps.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx import Stmt

from burnish.targets.attention_form import LEAST, finite, power
from burnish.targets.cpu import loops
from burnish.targets.gpu.attention.held import Held, ItemRows
from burnish.targets.gpu.launch import i32, unroll


def find_tops(held: Held, where: ItemRows) -> Stmt:
    """Takes an item's scores: from here on the memory is for their powers."""
    row, segment = held.segment(where)
    top = held.new[(i32(0),)]

    def one(at: Any) -> Stmt:
        return loops.seq(
            loops.store(held.mine, held.scores.at(row, at * held.segments + segment), [at]),
            loops.store(held.new, tirx.max(top, held.mine[(at,)]), [i32(0)]),
        )

    body = loops.seq(
        loops.store(held.new, LEAST, [i32(0)]),
        unroll(held.turns, one),
        held.tops.put(row, segment, top),
    )
    return held.with_row(where, body)


def make_powers(held: Held, where: ItemRows) -> Stmt:
    """Each item keeps the sum of its own segments."""
    row, segment = held.segment(where)
    at0 = [i32(0)]
    top, new, share, value = (
        buffer[(i32(0),)] for buffer in (held.top, held.new, held.share, held.value)
    )

    def one(at: Any) -> Stmt:
        return loops.seq(
            loops.store(held.value, power(held.mine[(at,)], finite(new)), at0),
            loops.store(held.share, share + value, at0),
            held.scores.put(row, at * held.segments + segment, value),
        )

    body = loops.seq(
        loops.store(held.new, top, at0),
        loops.serial(
            i32(held.segments),
            lambda s: loops.store(held.new, tirx.max(new, held.tops.at(row, s)), at0),
            "s",
        ),
        loops.store(held.value, power(top, finite(new)), at0),
        loops.store(held.share, share * value, at0),
        loops.branch(segment.equal(0), held.shrink.put(row, i32(0), value)),
        unroll(held.turns, one),
        loops.store(held.top, new, at0),
    )
    return held.with_row(where, body)


__all__ = ["find_tops", "make_powers"]
