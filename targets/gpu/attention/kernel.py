"""The launch of an attention kernel, and its loop over blocks of keys."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets import attention_form as form
from burnish.targets.cpu import loops
from burnish.targets.gpu.attention.block import Limits, choose_block
from burnish.targets.gpu.attention.copies import copy_keys, copy_queries, copy_values
from burnish.targets.gpu.attention.epilogue import finish
from burnish.targets.gpu.attention.held import ZERO, Held, ItemRows
from burnish.targets.gpu.attention.online_softmax import find_tops, make_powers
from burnish.targets.gpu.attention.products import mix, score
from burnish.targets.gpu.attention_rows import BlockRows, count_of_blocks, rows_of, tiles_of_keys
from burnish.targets.gpu.launch import barrier, i32, launched


def emit(func: tirx.PrimFunc, limits: Limits) -> tirx.PrimFunc | None:
    """The kernel of an attention, or ``None`` for another function and one that does not fit."""
    attention = form.read(func)
    if attention is None:
        return None
    block = choose_block(attention.sizes, limits)
    if block is None:
        return None
    held = Held(attention, block)

    def group(place: Expr, item: Expr) -> Stmt:
        def rows(where: BlockRows) -> Stmt:
            return _group(held, ItemRows(**vars(where), item=item))

        return rows_of(attention, place, block.rows, rows)

    axes = {
        "blockIdx.x": count_of_blocks(attention.sizes, block.rows),
        "threadIdx.x": block.items,
    }
    return func.with_body(launched(axes, group, "int32")).with_attr("s_tir", True)


def _group(held: Held, where: ItemRows) -> Stmt:
    """All blocks of keys of a group's rows."""
    block = held.block

    def step(at: Any) -> Stmt:
        return loops.named(lambda first: _step(held, where, first), first=at * block.keys)

    steps = tiles_of_keys(held.attention, where, block.rows, block.keys)
    return loops.seq(
        *held.allocated(),
        copy_queries(held, where),
        held.each(lambda i, j: loops.store(held.mixed, ZERO, [i, j])),
        loops.store(held.top, form.LEAST, [i32(0)]),
        loops.store(held.share, ZERO, [i32(0)]),
        barrier(),
        loops.named(lambda steps: loops.serial(steps, step, "step"), steps=steps),
        finish(held, where),
    )


def _step(held: Held, where: ItemRows, first: Any) -> Stmt:
    """A block of keys; part 3 reads them where they lie."""
    before, between = [], []
    if not held.block.direct:
        before = [copy_keys(held, where, first), barrier()]
        between = [copy_values(held, where, first)]
    return loops.seq(
        *before,
        score(held, where, first),
        barrier(),
        *between,
        find_tops(held, where),
        barrier(),
        make_powers(held, where),
        barrier(),
        mix(held, where, first),
        barrier(),
    )


__all__ = ["emit"]
