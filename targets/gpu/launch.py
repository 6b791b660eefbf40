"""Kernels of blocks of threads, written as loops: what a device allows, launches and barriers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import AttrStmt, Bind, Evaluate, For, Stmt

from burnish.targets.cpu import loops

_THREAD_INDEX = 1


@dataclass(frozen=True)
class Device:
    """Most ``threads`` of a block, bytes of its ``shared`` memory, threads of a ``warp``, who may
    hand values to each other where the device has ``shuffles``, and bytes of their vectors."""

    threads: int
    shared: int
    warp: int = 32
    shuffles: bool = False
    vector: int = 16


def launched(
    axes: Mapping[str, loops.Extent], body: Callable[..., Stmt], dtype: str = "int64"
) -> Stmt:
    """``body`` of the variables of launch axes, in their order; of ``dtype`` where an extent is
    known, else of the extent's."""
    variables = []
    for tag, extent in axes.items():
        known = loops.as_int(extent)
        size: Any = extent if known is None else loops.const(known, dtype)
        kind = str(size.ty.dtype)
        span = tvm.ir.Range(loops.const(0, kind), size)
        var = Var(tag.replace(".", "_"), kind)
        variables.append((tirx.IterVar(span, var, _THREAD_INDEX, tag), size))
    inside = body(*(axis.var for axis, _ in variables))
    for axis, size in reversed(variables):
        inside = AttrStmt(axis, "thread_extent", size, inside)
    return inside


def launch(blocks: loops.Extent, threads: int, body: Callable[[Expr, Expr], Stmt]) -> Stmt:
    """``body`` of the block's and the thread's number, on ``blocks`` times ``threads``."""
    return launched({"blockIdx.x": blocks, "threadIdx.x": threads}, body)


def launch_grid(
    groups: loops.Extent, across: int, down: int, item: Callable[[Expr, Expr, Expr], Stmt]
) -> Stmt:
    """``item(group, across, down)`` for each of ``groups`` x ``down`` x ``across`` work items."""
    return launched({"blockIdx.x": groups, "threadIdx.x": across, "threadIdx.y": down}, item)


def barrier(scope: str = "shared") -> Stmt:
    """All threads of a block wait here, and see each other's shared memory."""
    return Evaluate(tirx.op.tvm_storage_sync(scope))


def shared(shape: list[int], dtype: str, name: str) -> Var:
    """A buffer of the block."""
    return tirx.decl_buffer(shape, dtype, name, scope="shared")


def strided(
    count: int, threads: int, thread: Expr, body: Callable[[Expr], Stmt], *, flat: bool = False
) -> Stmt:
    """``body`` of each of ``count`` numbers, neighbouring threads taking neighbours.

    ``flat`` unrolls the turns that a thread takes.
    """
    turns = -(-count // threads)

    def turn(i: Expr) -> Stmt:
        item = i * threads + thread
        inside = body(item)
        return inside if count % threads == 0 else loops.branch(item < count, inside)

    return loops.unroll(turns, turn, "i") if flat else loops.serial(turns, turn, "i")


def bound(body: Callable[..., Stmt], **values: Expr) -> Stmt:
    """``body`` of the values, each computed once here."""
    names = [Var(name, str(value.ty.dtype)) for name, value in values.items()]
    parts = [Bind(name, value) for name, value in zip(names, values.values(), strict=True)]
    return loops.seq(*parts, body(*names))


def guarded(conditions: Sequence[Expr], body: Stmt) -> Stmt:
    """``body`` where all ``conditions`` hold."""
    return loops.branch(tirx.all(*conditions), body) if conditions else body


def rolled(extent: loops.Extent, body: loops.Body, name: str) -> Stmt:
    """A serial loop that CUDA's compiler is told not to unroll."""
    loop = loops.serial(extent, body, name)
    if not isinstance(loop, For):
        return loop
    note = {"disable_unroll": True}
    return For(loop.loop_var, loop.min, loop.extent, loop.kind, loop.body, annotations=note)


def i32(value: int) -> Expr:
    return tirx.const(value, "int32")


def unroll(extent: int, body: loops.Body) -> Stmt:
    """With a counter of int32, as indices into what a block holds are."""
    return loops.unroll(i32(extent), body)


def spread(extent: loops.Extent, items: int, own: Expr, body: Callable[[Any], Stmt]) -> Stmt:
    """``body`` of all of ``extent``, every ``items``-th for the item ``own``."""
    rounds, over = loops.divide(extent, items)
    parts: list[Stmt] = []
    if loops.as_int(rounds) != 0:
        parts.append(loops.serial(rounds, lambda i: body(i * items + own), "round"))
    if loops.as_int(over) != 0:
        parts.append(loops.branch(own < over, body(loops.times(rounds, items) + own)))
    return loops.seq(*parts)


def within(place: Any, extent: loops.Extent) -> Any:
    """``place``, or the last that there is."""
    return tirx.min(place, loops.const(extent - 1) if isinstance(extent, int) else extent - 1)
