"""The launch of an attention kernel, and its loop over tiles of keys."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx import Stmt

from burnish.targets.attention_form import LEAST, Attention
from burnish.targets.cpu import loops
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.cuda.warp_attention.copies import copy_keys, copy_queries, copy_values
from burnish.targets.cuda.warp_attention.epilogue import finish
from burnish.targets.cuda.warp_attention.held import Held
from burnish.targets.cuda.warp_attention.online_softmax import online_softmax
from burnish.targets.cuda.warp_attention.products import mix, score, take_queries
from burnish.targets.cuda.warp_attention.tile import Tile
from burnish.targets.gpu.attention_rows import BlockRows, count_of_blocks, rows_of, tiles_of_keys
from burnish.targets.gpu.launch import rolled, unroll


def emit(attention: Attention, tile: Tile, target: CudaTarget, *, described: bool) -> Stmt:
    """The kernel's body; ``described``, one that a CPU runs."""
    held = Held(attention, tile, target, described=described)

    def block(place: Any) -> Stmt:
        return rows_of(attention, place, tile.rows, lambda where: _block(held, where))

    count = count_of_blocks(attention.sizes, tile.rows)
    return held.block.launched(count, block, tile.at_once(attention.sizes, target))


def _block(held: Held, where: BlockRows) -> Stmt:
    """All tiles of keys of a block's rows."""
    tile, block = held.tile, held.block
    steps = tiles_of_keys(held.attention, where, tile.rows, tile.keys)

    def each_step(steps: Any) -> Stmt:
        def step(at: Any) -> Stmt:
            return loops.named(
                lambda first: _step(held, where, first, at + 1 < steps), first=at * tile.keys
            )

        ahead = loops.branch(steps > 0, copy_keys(held, where, loops.const(0)))
        return loops.seq(
            *([block.copies(ahead)] if held.pipelined else []), rolled(steps, step, "step")
        )

    return loops.seq(
        *held.allocated(),
        copy_queries(held, where),
        _start(held),
        *([block.barrier(), take_queries(held)] if held.keeps_queries else []),
        loops.named(each_step, steps=steps),
        finish(held, where),
    )


def _start(held: Held) -> Stmt:
    """Nothing summed, and no score seen."""
    zero = tirx.const(0.0, "float32")
    return held.block.each(
        lambda w, lane: loops.seq(
            unroll(held.mixed.held, lambda e: held.mixed.put(w, lane, e, zero)),
            unroll(held.top.held, lambda e: held.top.put(w, lane, e, LEAST)),
            unroll(held.share.held, lambda e: held.share.put(w, lane, e, zero)),
        )
    )


def _step(held: Held, where: BlockRows, first: Any, more: Any) -> Stmt:
    """A tile of keys; whether there are ``more`` says if the next keys are copied meanwhile."""
    block = held.block
    if not held.pipelined:
        return loops.seq(
            copy_keys(held, where, first),
            copy_values(held, where, first),
            block.barrier(),
            score(held),
            online_softmax(held, where, first),
            mix(held),
            block.barrier(),
        )
    following = loops.branch(more, copy_keys(held, where, first + held.tile.keys))
    return loops.seq(
        block.copies(copy_values(held, where, first)),
        block.wait(1),
        score(held),
        block.barrier(),
        block.copies(following),
        online_softmax(held, where, first),
        block.wait(1),
        mix(held),
        block.barrier(),
    )


__all__ = ["emit"]
