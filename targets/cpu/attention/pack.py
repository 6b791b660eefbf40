"""Keys and values laid out for the register tiles of an attention kernel, in parallel."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.attention.plan import Plan
from burnish.targets.cpu.vectors import Block


def workspaces(plan: Plan) -> tuple[Var, Var]:
    """Keys ``[B, KV, panels, D, width]`` and values ``[B, KV, panels * width, E]``."""
    head = [plan.batch, plan.key_heads, plan.panels]
    keys = loops.workspace([*head, plan.depth, plan.width], "float32", "keys")
    length = loops.times(plan.panels, plan.width)
    values = loops.workspace([*head[:2], length, plan.values], "float32", "values")
    return keys, values


def pack(plan: Plan, keys: Var, values: Var, task: Expr) -> Stmt:
    """One panel: its keys transposed, the last key repeated to its end, and its values copied."""
    rest, panel = loops.split_two(task, plan.panels)
    b, kv = loops.split_two(rest, plan.key_heads)
    return loops.named(lambda *at: _panel(plan, keys, values, *at), b=b, kv=kv, panel=panel)


def _panel(plan: Plan, keys: Var, values: Var, b: Expr, kv: Expr, panel: Expr) -> Stmt:
    lanes = plan.lanes
    last = plan.n - 1

    def key(x: Expr) -> Expr:
        return tirx.min(panel * plan.width + x, last)

    def square(x: Expr, d: Expr) -> Stmt:
        block = Block(lanes)
        keys_at = [block.name(key(x + i)) for i in range(lanes)]
        rows = [block.load(plan.k, [b, at, kv, d]) for at in keys_at]
        for i, row in enumerate(block.transposed(rows)):
            block.store(keys, row, [b, kv, panel, d + i, x])
        return block.done()

    def edge(x: Expr, d: Expr) -> Stmt:
        return loops.serial(
            lanes,
            lambda i: loops.store(keys, plan.k[b, key(x + i), kv, d], [b, kv, panel, d, x + i]),
        )

    def columns(c: Expr) -> Stmt:
        x = c * lanes
        squares, rest = divmod(plan.depth, lanes)
        return loops.seq(
            loops.serial(squares, lambda s: square(x, s * lanes), "s"),
            loops.serial(rest, lambda d: edge(x, d + squares * lanes), "d"),
        )

    def value(x: Expr) -> Stmt:
        return loops.vectors(
            plan.values,
            lanes,
            lambda e: loops.store(
                values, plan.v[b, key(x), kv, e], [b, kv, panel * plan.width + x, e]
            ),
        )

    return loops.seq(
        loops.serial(plan.width // lanes, columns, "c"), loops.serial(plan.width, value, "x")
    )
