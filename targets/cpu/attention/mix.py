"""Values weighted by the powers of scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.attention.plan import VECTORS
from burnish.targets.cpu.attention.scratch import Rows, f32


def mix(
    here: Rows, r: Expr, mr: int, kb: Expr, inside: Any, packed: tuple[Var, Var] | None
) -> Stmt:
    """Values weighted by the powers of ``mr`` rows, added to what there is."""
    plan = here.plan
    if plan.causal:
        last = tirx.min(r + (mr - 1), here.count - 1)
        inside = tirx.max(tirx.min(inside, plan.limit(here.first + last) - kb * plan.keys), 0)
    return loops.named(lambda inside: _weighted(here, r, mr, kb, inside, packed), inside=inside)


def _weighted(
    here: Rows, r: Expr, mr: int, kb: Expr, inside: Any, packed: tuple[Var, Var] | None
) -> Stmt:
    plan = here.plan
    chunks = -(-plan.values // (VECTORS * plan.lanes))
    vectors = -(-plan.values // plan.lanes)
    size = -(-vectors // chunks) * plan.lanes

    def chunk(e0: int) -> Stmt:
        width = min(size, plan.values - e0)
        acc = loops.local([mr, width], "float32", "acc")

        def over(body: Callable[[Any, Any], Stmt]) -> Stmt:
            return loops.unroll(
                mr, lambda i: loops.vectors(width, plan.lanes, lambda e: body(i, e)), "i"
            )

        def value(x: Expr, e: Expr) -> Expr:
            key = kb * plan.keys + x
            if packed is None:
                return plan.v[here.b, key, here.kv, e0 + e]
            return packed[1][here.b, here.kv, key, e0 + e]

        def step(x: Expr) -> Stmt:
            return over(
                lambda i, e: loops.store(
                    acc, acc[i, e] + here.scratch.scores[r + i, x] * value(x, e), [i, e]
                )
            )

        def join(i: Expr, e: Expr) -> Stmt:
            before = here.scratch.mixed[r + i, e0 + e]
            if not plan.single:
                before = before * here.scratch.factor[r + i]
            new = acc[i, e] if plan.single else before + acc[i, e]
            return loops.store(here.scratch.mixed, new, [r + i, e0 + e])

        return loops.seq(
            loops.allocate(acc),
            over(lambda i, e: loops.store(acc, f32(0), [i, e])),
            loops.serial(inside, step, "x"),
            over(join),
        )

    return loops.seq(*[chunk(c * size) for c in range(chunks)])


__all__ = ["mix"]
