"""The tasks of an attention kernel: panels to pack, then heads and blocks of rows."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.attention_form import read
from burnish.targets.cpu import loops, maps
from burnish.targets.cpu.attention import block
from burnish.targets.cpu.attention.pack import pack, workspaces
from burnish.targets.cpu.attention.plan import FEW_ROWS, Plan
from burnish.targets.cpu.attention.scratch import scratch
from burnish.targets.target import CpuTarget

_CHUNKS = 4
"""Runs of tasks a thread takes; the tasks of a run share their memory."""


def emit(func: tirx.PrimFunc, target: CpuTarget) -> tirx.PrimFunc | None:
    """The fused kernel of an attention function, or ``None`` for any other function.

    Parameters are those of the function: ``q [B, M, H, D], k [B, N, KV, D], v [B, N, KV, E]``,
    perhaps ``bias``, and the result ``[B, M, H, E]``; ``KV`` divides ``H``.
    """
    attention = read(func)
    if attention is None:
        return None
    attrs = {str(key): value for key, value in func.attrs.items()}
    body = _body(Plan.of(attention, target), target)
    return loops.prim_func(func.params, body, {**attrs, "s_tir": True})


def _body(plan: Plan, target: CpuTarget) -> Stmt:
    rows = loops.as_int(plan.rows)
    in_place = plan.depth % plan.lanes == 0
    if rows is not None:
        return _in_place(plan, rows) if in_place and rows <= FEW_ROWS else _packed(plan, target)
    if not in_place:
        return _packed(plan, target)
    return loops.branch(plan.rows <= FEW_ROWS, _in_place(plan, FEW_ROWS), _packed(plan, target))


def _work(plan: Plan) -> int | None:
    work = loops.as_int(loops.product([plan.batch, plan.key_heads, plan.rows, plan.n]))
    return None if work is None else work * (plan.depth + plan.values + 16)


def _packed(plan: Plan, target: CpuTarget) -> Stmt:
    packed = workspaces(plan)
    heads = [plan.batch, plan.key_heads]

    def tasks(blocks: loops.Extent) -> Stmt:
        return loops.named(
            lambda count: _in_chunks(plan, packed, blocks, count, target),
            tasks=loops.product([*heads, blocks]),
        )

    return loops.seq(
        *[loops.allocate(buffer) for buffer in packed],
        maps.parallel_or_serial(
            loops.product([*heads, plan.panels]), _work(plan), lambda p: pack(plan, *packed, p)
        ),
        loops.named(tasks, blocks=loops.divide(plan.rows + (plan.block - 1), plan.block)[0]),
    )


def _in_chunks(
    plan: Plan,
    packed: tuple[Var, Var],
    blocks: loops.Extent,
    tasks: loops.Extent,
    target: CpuTarget,
) -> Stmt:
    own = scratch(plan, plan.block)

    def task(p: Expr) -> Stmt:
        rest, tile = loops.split_two(p, blocks)
        b, kv = loops.split_two(rest, plan.key_heads)
        if plan.causal and loops.as_int(blocks) != 1:
            # First and last blocks in turn: neighbours have equal work together.
            half = tirx.floordiv(tile, 2)
            tile = tirx.Select(tirx.floormod(tile, 2).equal(0), half, blocks - 1 - half)
        return loops.named(
            lambda b, kv, tile: block.emit(plan, b, kv, tile, packed, own),
            b=b,
            kv=kv,
            tile=tile,
        )

    known = loops.as_int(tasks)
    chunks = _CHUNKS * target.threads
    if known is not None:
        chunks = max(1, min(chunks, known))

    def chunk(c: Expr) -> Stmt:
        start = tirx.floordiv(c * tasks, chunks)
        count = tirx.floordiv((c + 1) * tasks, chunks) - start
        if known is not None and known % chunks == 0:
            count = loops.const(known // chunks)
        return own.allocated(
            loops.named(
                lambda first, size: loops.serial(size, lambda t: task(first + t), "task"),
                first=start,
                size=count,
            )
        )

    return maps.parallel_or_serial(chunks, _work(plan), chunk)


def _in_place(plan: Plan, rows: int) -> Stmt:
    own = scratch(plan, rows)

    def task(p: Expr) -> Stmt:
        b, kv = loops.split_two(p, plan.key_heads)
        return own.allocated(
            loops.named(
                lambda b, kv: block.emit(plan, b, kv, loops.const(0), None, own),
                b=b,
                kv=kv,
            )
        )

    return maps.parallel_or_serial(loops.product([plan.batch, plan.key_heads]), _work(plan), task)


__all__ = ["emit"]
