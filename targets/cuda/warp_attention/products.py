"""The two products of a tile of keys: scores, and what they have of the values."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cuda.fragments import SIZE
from burnish.targets.cuda.warp_attention.held import Held
from burnish.targets.gpu.launch import i32, unroll


def take_queries(held: Held) -> Stmt:
    """To registers, for all tiles of keys."""
    pieces = held.depth // SIZE
    return unroll(
        held.tile.down,
        lambda p: unroll(pieces, lambda d: _take_query(held, (p * pieces + d) * 8, p, d)),
    )


def _take_query(held: Held, at: Any, p: Any, d: Any) -> Stmt:
    """A piece of rows and of depth."""
    return held.block.load_a(held.left, at, held.queries, held.row(p), d * SIZE)


def score(held: Held) -> Stmt:
    """``queries keys^T``, not scaled."""
    block, tile = held.block, held.tile
    pieces = held.depth // SIZE
    zero = tirx.const(0.0, "float32")

    def left(p: Any, d: Any) -> Any:
        return (p * pieces + d) * 8 if held.keeps_queries else p * 8

    def multiplied(j: Any, d: Any) -> Stmt:
        return loops.seq(
            block.load_b(held.right, i32(0), held.keys, held.key(j), d * SIZE, False),
            unroll(
                tile.down,
                lambda p: block.multiply(
                    held.scores, held.score_at(p, j, 0), held.left, left(p, d), held.right
                ),
            ),
        )

    def deep(d: Any) -> Stmt:
        again = (
            []
            if held.keeps_queries
            else [unroll(tile.down, lambda p: _take_query(held, p * 8, p, d))]
        )
        return loops.seq(*again, unroll(tile.across, lambda j: multiplied(j, d)))

    clear = block.each(
        lambda w, lane: unroll(held.scores.held, lambda e: held.scores.put(w, lane, e, zero))
    )
    return loops.seq(clear, unroll(pieces, deep))


def mix(held: Held) -> Stmt:
    """Add ``powers values`` to the sums."""
    block, tile = held.block, held.tile
    return unroll(
        tile.across,
        lambda j: unroll(
            held.values // SIZE,
            lambda c: loops.seq(
                block.load_b(held.right, i32(0), held.mixed_in, held.key(j), c * SIZE, True),
                unroll(
                    tile.down,
                    lambda p: block.multiply(
                        held.mixed,
                        held.sum_at(p, c, 0),
                        held.powers,
                        held.score_at(p, j, 0),
                        held.right,
                    ),
                ),
            ),
        ),
    )


__all__ = ["mix", "score", "take_queries"]
