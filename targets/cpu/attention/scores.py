"""Products of a block's rows with keys: of packed panels, or where the keys lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.attention.scratch import Rows, f32
from burnish.targets.cpu.vectors import Block


def packed_scores(here: Rows, r: Expr, mr: int, kb: Expr, inside: Any, keys: Var) -> Stmt:
    """Products of ``mr`` rows with the panels of this block of keys that they see."""
    plan = here.plan
    if plan.causal:
        seen = plan.limit(here.first + r + (mr - 1)) - kb * plan.keys
        inside = tirx.max(tirx.min(inside, seen), 0)
    return loops.named(
        lambda inside: loops.named(
            lambda whole, rest: _panels(here, r, mr, kb, whole, rest, keys),
            whole=loops.divide(inside, plan.width)[0],
            rest=loops.divide(inside, plan.width)[1],
        ),
        inside=inside,
    )


def _panels(here: Rows, r: Expr, mr: int, kb: Expr, whole: Any, rest: Any, keys: Var) -> Stmt:
    """``whole`` panels of keys, and ``rest`` keys of the one after them."""
    plan = here.plan
    per = plan.keys // plan.width

    def tile(panel: Expr, vectors: int) -> Stmt:
        width = vectors * plan.lanes
        acc = loops.local([mr, width], "float32", "acc")

        def over(body: Callable[[Any, Any], Stmt]) -> Stmt:
            return loops.unroll(
                mr, lambda i: loops.vectors(width, plan.lanes, lambda x: body(i, x)), "i"
            )

        def step(d: Expr) -> Stmt:
            return over(
                lambda i, x: loops.store(
                    acc,
                    acc[i, x]
                    + here.scratch.queries[r + i, d]
                    * keys[here.b, here.kv, kb * per + panel, d, x],
                    [i, x],
                )
            )

        return loops.seq(
            loops.allocate(acc),
            over(lambda i, x: loops.store(acc, f32(0), [i, x])),
            loops.serial(plan.depth, step, "d"),
            over(
                lambda i, x: loops.store(
                    here.scratch.scores, acc[i, x], [r + i, panel * plan.width + x]
                )
            ),
        )

    most = plan.width // plan.lanes
    known = loops.as_int(rest)
    parts = [loops.serial(whole, lambda p: tile(p, most), "p")]
    if known is not None:
        return loops.seq(*parts, *([tile(whole, -(-known // plan.lanes))] if known else []))
    n = loops.as_int(plan.n)
    if not plan.causal and n is not None:
        choices = {-(-(n % plan.width) // plan.lanes)} - {0}
    else:
        choices = set(range(1, most + 1))
    chosen = None
    for vectors in sorted(choices, reverse=True):
        narrow = tile(whole, vectors)
        chosen = (
            narrow if chosen is None else loops.branch(rest <= vectors * plan.lanes, narrow, chosen)
        )
    if chosen is not None:
        parts.append(loops.branch(rest > 0, chosen))
    return loops.seq(*parts)


def scores_in_place(here: Rows, start: Expr, inside: Any) -> Stmt:
    """Products of rows and keys along the depth, ``lanes`` keys at a time."""
    plan = here.plan
    lanes = plan.lanes

    def group(g: Expr) -> Stmt:
        def row(r: Expr) -> Stmt:
            block = Block(lanes)
            queries = [
                block.load(here.scratch.queries, [r, c]) for c in range(0, plan.depth, lanes)
            ]
            sums = []
            for i in range(lanes):
                key = block.name(tirx.min(start + g * lanes + i, plan.n - 1))
                total: Expr | None = None
                for c, query in enumerate(queries):
                    value = block.load(plan.k, [here.b, key, here.kv, c * lanes]) * query
                    total = value if total is None else block.name(total + value)
                assert total is not None
                sums.append(block.name(total))
            block.store(here.scratch.scores, block.sums(sums), [r, g * lanes])
            return block.done()

        return loops.serial(here.count, row, "r")

    whole, _ = loops.divide(inside + (lanes - 1), lanes)
    return loops.serial(whole, group, "g")


__all__ = ["packed_scores", "scores_in_place"]
