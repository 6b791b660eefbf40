"""Rule for maps: element-wise chains, transposes, gathers, padding, concatenation.

1. Kernels whose every access is ``buffer[i, j, ...]`` on equal shapes run as one flat loop.
2. Otherwise the innermost loop is the vector loop and the outer loops run in parallel.
3. Comparisons of the innermost variable with constants (concatenation, padding) split the loop
   into ranges in which they are decided, so that no element is tested.
4. Kernels with too little work to pay for waking the threads run on one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, Var
from tvm.ir.prim import EQ, GE, GT, LE, LT
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.stages import (
    Iter,
    Program,
    Stage,
    is_heavy,
    loads,
    same_indices,
    simplified,
    walk,
)
from burnish.targets.target import CpuTarget

SERIAL_WORK = 16 * 1024
"""Element operations below which a kernel stays on one thread (waking another costs ~3 us)."""


def work_of(stage: Stage) -> int | None:
    """Rough count of element operations of a stage."""
    count = stage.iterations
    if count is None:
        return None
    return count * (8 if is_heavy(stage.value) else 1)


def parallel_or_serial(extent: loops.Extent, work: int | None, body: loops.Body) -> Stmt:
    if work is not None and work < SERIAL_WORK:
        return loops.serial(extent, body)
    return loops.parallel(extent, body)


def emit(program: Program, stage: Stage, target: CpuTarget) -> Stmt:
    """Statement computing one map stage."""
    flat = _flattened(stage)
    if flat is not None:
        return _emit_flat(flat, stage, target)
    *outer, inner = stage.spatial if stage.spatial else (None,)
    if inner is None:
        return loops.store(stage.out, stage.value, stage.indices)
    outer_iters: list[Iter] = [it for it in outer if it is not None]
    extents = [it.extent for it in outer_iters]
    work = work_of(stage)

    def row(flat_index: Expr) -> Stmt:
        outer_at = dict(
            zip(
                [it.var for it in outer_iters],
                loops.split_index(flat_index, extents),
                strict=True,
            )
        )
        return _inner_loop(stage, inner, outer_at, target)

    if not outer_iters or loops.as_int(loops.product(extents)) == 1:
        return _chunked_inner(stage, inner, outer_iters, work, target)
    return parallel_or_serial(loops.product(extents), work, row)


def _zeroes(iters: Iterable[Iter]) -> dict[Var, Expr]:
    return {it.var: loops.const(0, str(it.var.ty.dtype)) for it in iters}


def _at(stage: Stage, mapping: dict[Var, Expr]) -> Stmt:
    value = loops.substitute(stage.value, mapping)
    indices = [loops.substitute(index, mapping) for index in stage.indices]
    return loops.store(stage.out, value, indices)


def _chunked_inner(
    stage: Stage, inner: Iter, outer: list[Iter], work: int | None, target: CpuTarget
) -> Stmt:
    size = inner.size
    if size is None or work is None or work < SERIAL_WORK or size % target.lanes:
        return _inner_loop(stage, inner, _zeroes(outer), target)
    blocks = size // target.lanes

    def block(p: Expr) -> Stmt:
        return loops.vector(
            target.lanes,
            lambda v: _at(stage, {**_zeroes(outer), inner.var: p * target.lanes + v}),
        )

    return loops.parallel(blocks, block)


def _breakpoints(stage: Stage, inner: Iter, size: int) -> list[int]:
    """Rule 3: where a comparison of the innermost variable with a constant changes."""
    points = {0, size}
    calls = [c for c in walk(stage.value, Call) if getattr(c.op, "name", "") == "prim.if_then_else"]
    for call in calls:
        for kind in (LT, LE, GT, GE, EQ):
            for compare in walk(call.args[0], kind):
                if not any(v.same_as(inner.var) for v in walk(compare, Var)):
                    continue
                difference = simplified(compare.a - compare.b - inner.var)
                negated = simplified(compare.b - compare.a - inner.var)
                for constant in (loops.as_int(difference), loops.as_int(negated)):
                    if constant is not None:
                        points.update({-constant, 1 - constant})
    inside = sorted(p for p in points if 0 <= p <= size)
    return inside if len(inside) <= 12 else [0, size]


def _inner_loop(stage: Stage, inner: Iter, outer_at: dict[Var, Expr], target: CpuTarget) -> Stmt:
    size = inner.size
    if size is None:
        return loops.span(
            inner.extent, target.lanes, lambda i: _at(stage, {**outer_at, inner.var: i})
        )
    cuts = _breakpoints(stage, inner, size)
    parts: list[Stmt] = []
    for low, high in pairwise(cuts):
        if len(cuts) > 2:
            value = simplified(stage.value, {inner.var: (low, high)})
            piece = replace(stage, value=value)
        else:
            piece = stage
        parts.append(_range_loop(piece, inner, outer_at, low, high - low, target))
    return loops.seq(*parts)


def _range_loop(
    stage: Stage,
    inner: Iter,
    outer_at: dict[Var, Expr],
    low: int,
    count: int,
    target: CpuTarget,
) -> Stmt:
    return loops.span(
        count, target.lanes, lambda i: _at(stage, {**outer_at, inner.var: i + low if low else i})
    )


def _flattened(stage: Stage) -> Expr | None:
    """Elements of a kernel that may run as one flat loop (rule 1), or ``None``."""
    variables = [it.var for it in stage.spatial]
    if len(variables) < 1 or not stage.identity():
        return None
    shape = list(stage.out.shape)
    for load in loads(stage.value):
        if not same_indices(load.indices, stage.indices):
            return None
        if not same_indices(load.source.shape, shape):
            return None
    outside = _without_loads(stage.value)
    if any(v.same_as(var) for v in walk(outside, Var) for var in variables):
        return None
    return loops.product(shape)


def _without_loads(value: Expr) -> Expr:
    from tvm.ir import TensorLoad

    return tvm_ffi.structural_map(
        value, [(TensorLoad, lambda load: tirx.const(0, str(load.ty.dtype)))], order="post"
    )


def _emit_flat(count: loops.Extent, stage: Stage, target: CpuTarget) -> Stmt:
    """The flat loop, in chunks a thread takes at once."""
    shape = list(stage.out.shape)
    lanes = target.lanes

    def at(flat: Expr) -> Stmt:
        indices = loops.split_index(flat, shape)
        mapping = dict(zip([it.var for it in stage.spatial], indices, strict=True))
        return _at(stage, mapping)

    total = loops.as_int(count)
    work = work_of(stage)
    if total is None:
        full = tirx.floordiv(count, lanes)
        return loops.seq(
            loops.parallel(full, lambda p: loops.vector(lanes, lambda v: at(p * lanes + v))),
            loops.serial(tirx.floormod(count, lanes), lambda r: at(full * lanes + r)),
        )
    parts: list[Stmt] = []
    full, rest = divmod(total, lanes)
    if full:
        parts.append(
            parallel_or_serial(
                full, work, lambda p: loops.vector(lanes, lambda v: at(p * lanes + v))
            )
        )
    if rest:
        parts.append(loops.vector(rest, lambda v: at(v + loops.const(full * lanes))))
    return loops.seq(*parts)
