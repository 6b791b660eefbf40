"""One block of query rows over all keys: scores, softmax and weighted sum, ``keys`` at a time.

The running maximum and sum of a row, and its result so far, are rescaled whenever a later block
of keys has a larger score (Milakov and Gimelshein 2018; Dao et al. 2022), so that only
``block * keys`` scores exist at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.attention.mix import mix
from burnish.targets.cpu.attention.online_softmax import online_softmax
from burnish.targets.cpu.attention.plan import Plan
from burnish.targets.cpu.attention.scores import packed_scores, scores_in_place
from burnish.targets.cpu.attention.scratch import Rows, Scratch, f32
from burnish.targets.cpu.softmax import LOWEST
from burnish.targets.cpu.vectors import Block


def emit(
    plan: Plan, b: Expr, kv: Expr, tile: Expr, packed: tuple[Var, Var] | None, own: Scratch
) -> Stmt:
    """Block number ``tile`` of head ``kv``; ``packed`` is ``None`` to read keys where they are."""
    block = own.rows
    known = loops.as_int(plan.rows)
    count: Any = tirx.min(plan.rows - tile * block, block)
    if known is not None and known % block == 0:
        count = block

    def rows(first: Expr, count: Any) -> Stmt:
        here = Rows(plan, b, kv, first, count, own)
        return loops.named(
            lambda seen: _all_keys(here, seen, packed), seen=plan.limit(first + (count - 1))
        )

    return loops.named(rows, first=tile * block, count=count)


def _all_keys(here: Rows, seen: Any, packed: tuple[Var, Var] | None) -> Stmt:
    """Everything for a block of rows of which the last sees ``seen`` keys."""
    plan, count = here.plan, here.count
    blocks = 1 if plan.single else loops.divide(seen + (plan.keys - 1), plan.keys)[0]

    def over_keys(kb: Expr) -> Stmt:
        start = kb * plan.keys
        inside: Any = seen if plan.single else tirx.min(seen - start, plan.keys)
        return loops.named(
            lambda start, inside: _some_keys(here, kb, start, inside, packed),
            start=start,
            inside=inside,
        )

    return loops.seq(
        loops.serial(count, lambda r: _start(here, r), "r"),
        loops.serial(blocks, over_keys, "kb"),
        loops.serial(count, lambda r: _finish(here, r), "r"),
    )


def _some_keys(
    here: Rows, kb: Expr, start: Expr, inside: Any, packed: tuple[Var, Var] | None
) -> Stmt:
    score = (
        scores_in_place(here, start, inside)
        if packed is None
        else _tiled(here, lambda r, mr: packed_scores(here, r, mr, kb, inside, packed[0]))
    )
    return loops.seq(
        score,
        loops.serial(here.count, lambda r: online_softmax(here, r, start, inside), "r"),
        _tiled(here, lambda r, mr: mix(here, r, mr, kb, inside, packed)),
    )


def _start(here: Rows, r: Expr) -> Stmt:
    plan = here.plan
    position, head = plan.query(here.kv, here.first + r)
    scaled = loops.vectors(
        plan.depth,
        plan.lanes,
        lambda d: loops.store(
            here.scratch.queries, plan.q[here.b, position, head, d] * f32(plan.scale), [r, d]
        ),
    )
    return loops.seq(
        scaled,
        loops.store(here.scratch.top, f32(LOWEST), [r]),
        loops.vector(plan.lanes, lambda v: loops.store(here.scratch.total, f32(0), [r, v])),
        loops.vectors(
            plan.values, plan.lanes, lambda e: loops.store(here.scratch.mixed, f32(0), [r, e])
        ),
    )


def _finish(here: Rows, r: Expr) -> Stmt:
    """The row divided by its sum; rows with no key at all become zeros."""
    plan = here.plan
    position, head = plan.query(here.kv, here.first + r)
    block = Block(plan.lanes)
    total = block.folded(block.load(here.scratch.total, [r, 0]), lambda a, c: a + c)
    block.put(here.scratch.factor, tirx.Select(total > 0, f32(1) / total, f32(0)), [r])
    return loops.seq(
        block.done(),
        loops.vectors(
            plan.values,
            plan.lanes,
            lambda e: loops.store(
                plan.out,
                here.scratch.mixed[r, e] * here.scratch.factor[r],
                [here.b, position, head, e],
            ),
        ),
    )


def _tiled(here: Rows, body: Callable[[Expr, int], Stmt]) -> Stmt:
    """``body(first row, height)`` for all rows of a block.

    The last tile may be higher than what is left: local buffers have room for that.
    """
    mr = here.plan.mr
    known = loops.as_int(here.count)
    if known is None:
        full, rest = loops.divide(here.count, mr)
        return loops.named(lambda *parts: _tiles(here, body, *parts), full=full, rest=rest)
    full, rest = loops.divide(known, mr)
    whole = loops.serial(full, lambda t: body(t * mr, mr), "t")
    tail = [body(loops.const(known - rest), rest)] if rest else []
    return loops.seq(whole, *tail)


def _tiles(here: Rows, body: Callable[[Expr, int], Stmt], full: Any, rest: Any) -> Stmt:
    mr = here.plan.mr
    whole = loops.serial(full, lambda t: loops.named(lambda r: body(r, mr), r=t * mr), "t")
    chosen = None
    for height in reversed(here.plan.tails()):
        tile = loops.named(lambda r, h=height: body(r, h), r=full * mr)
        chosen = tile if chosen is None else loops.branch(rest <= height, tile, chosen)
    return whole if chosen is None else loops.seq(whole, loops.branch(rest > 0, chosen))


__all__ = ["emit"]
