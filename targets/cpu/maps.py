"""Rule for maps: element-wise chains, transposes, gathers, padding, concatenation.

1. Kernels whose every access is ``buffer[i, j, ...]`` on equal shapes run as one flat loop.
2. Otherwise the innermost loop is the vector loop and the outer loops run in parallel.
3. Comparisons of one loop's variable with constants (concatenation, padding) split that loop
   into ranges in which they are decided, so that no element is tested. A last loop in which they
   repeat is made two first (``periods``).
4. Kernels with too little work to pay for waking the threads run on one.
5. Only as many outer axes share the threads as make ``_TASKS`` tasks for each; the others are
   plain loops, so that what depends on their index alone is computed once a row and no index is
   taken apart by divisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, Var
from tvm.ir.prim import EQ, GE, GT, LE, LT
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.periods import apart
from burnish.targets.cpu.stages import (
    Iter,
    Stage,
    is_heavy,
    loads,
    same_indices,
    simplified,
    walk,
)
from burnish.targets.target import CpuTarget

_TASKS = 16
SERIAL_WORK = 16 * 1024
"""Element operations below which a kernel stays on one thread (waking another costs ~3 us)."""

_CHANGES: dict[type, Callable[[int], tuple[int, ...]]] = {
    LT: lambda n: (n,),
    GE: lambda n: (n,),
    LE: lambda n: (n + 1,),
    GT: lambda n: (n + 1,),
    EQ: lambda n: (n, n + 1),
}
"""From where on a comparison of a variable with ``n`` has another answer."""
_TURNED = {LT: GT, GT: LT, LE: GE, GE: LE, EQ: EQ}
MOST_RANGES = 64
"""Ranges a loop is cut into at most: each is code of its own."""


def work_of(stage: Stage) -> int | None:
    """Rough count of element operations of a stage."""
    count = stage.iterations
    if count is None:
        return None
    return count * (8 if is_heavy(stage.value) else 1)


def open_work(stage: Stage) -> loops.Extent:
    """The same where loops may be symbolic, for a choice when the kernel runs."""
    count = loops.product([it.extent for it in stage.spatial + stage.reduce])
    return loops.product([count, 8]) if is_heavy(stage.value) else count


def parallel_or_serial(extent: loops.Extent, work: loops.Extent | None, body: loops.Body) -> Stmt:
    """Rule 4. Where ``work`` is symbolic the kernel has both loops; without, it is parallel."""
    known = loops.as_int(work)
    if known is not None:
        make = loops.serial if known < SERIAL_WORK else loops.parallel
        return make(extent, body)
    if work is None or isinstance(work, int):
        return loops.parallel(extent, body)
    return loops.branch(
        work < SERIAL_WORK, loops.serial(extent, body), loops.parallel(extent, body)
    )


def emit(stage: Stage, target: CpuTarget) -> Stmt:
    """Statement computing one map stage."""
    stage = apart(stage)
    flat = _flattened(stage)
    if flat is not None:
        return _emit_flat(flat, stage, target)
    *outer, inner = stage.spatial if stage.spatial else (None,)
    if inner is None:
        return loops.store(stage.out, stage.value, stage.indices)
    outer_iters: list[Iter] = [it for it in outer if it is not None]
    work = work_of(stage)
    cut = _cut_axis(stage, outer_iters)
    if cut is not None:
        return _in_pieces(stage, inner, outer_iters, *cut, target)
    if loops.as_int(loops.product([it.extent for it in outer_iters])) == 1:
        return _chunked_inner(stage, inner, outer_iters, work, target)
    split = _parallel_axes(outer_iters, target)
    lead, rest = outer_iters[:split], outer_iters[split:]
    extents = [it.extent for it in lead]

    def row(flat_index: Expr) -> Stmt:
        at = loops.split_index(flat_index, extents)
        return over(rest, dict(zip([it.var for it in lead], at, strict=True)))

    def over(left: list[Iter], done: dict[Var, Expr]) -> Stmt:
        if not left:
            return _inner_loop(stage, inner, done, target)
        return loops.serial(left[0].extent, lambda i: over(left[1:], {**done, left[0].var: i}))

    return parallel_or_serial(loops.product(extents), open_work(stage), row)


def _cut_axis(stage: Stage, outer: list[Iter]) -> tuple[Iter, list[int]] | None:
    """The outer loop to cut by rule 3, and where: the one with most ranges."""
    found = [(it, _decided_ranges(stage, it)) for it in outer]
    best = max(found, key=lambda pair: len(pair[1]), default=None)
    return best if best is not None and len(best[1]) > 2 else None


def _decided_ranges(stage: Stage, it: Iter) -> list[int]:
    """Where conditions that ``it`` alone decides change, from 0 to its size; else nothing."""
    size = it.size
    calls = [c for c in walk(stage.value, Call) if getattr(c.op, "name", "") == "prim.if_then_else"]
    if size is None or not calls:
        return []
    if size > MOST_RANGES:
        return _breakpoints(stage, it, size)
    bounds = _bounds(stage)
    points = {0, size}
    for call in calls:
        condition = call.args[0]
        if not any(v.same_as(it.var) for v in walk(condition, Var)) or loads(condition):
            continue
        told = [
            loops.as_int(simplified(condition, {**bounds, it.var: (k, k + 1)})) for k in range(size)
        ]
        if None not in told:
            points.update(k for k in range(1, size) if told[k] != told[k - 1])
    return sorted(points)


def _bounds(stage: Stage) -> dict[Var, tuple[int, int]]:
    return {it.var: (0, it.size) for it in stage.spatial if it.size is not None}


def _in_pieces(
    stage: Stage, inner: Iter, outer: list[Iter], cut: Iter, at: list[int], target: CpuTarget
) -> Stmt:
    """Rule 3 along an outer loop: the other loops in parallel, one range after the other inside.

    Where there are no other loops, each range is a parallel loop.
    """
    others = [it for it in outer if it is not cut]
    work, count = work_of(stage), loops.product([it.extent for it in others])
    size = cut.size or 0
    alone = (loops.as_int(count) or target.threads) < target.threads

    def piece(low: int, high: int, flat: Expr) -> Stmt:
        parts = loops.split_index(flat, [it.extent for it in others])
        around = dict(zip([it.var for it in others], parts, strict=True))
        bounds = {**_bounds(stage), cut.var: (low, high)}
        now = replace(stage, value=simplified(stage.value, bounds))

        def step(k: Expr) -> Stmt:
            return _inner_loop(now, inner, {**around, cut.var: k + low if low else k}, target)

        if alone:
            share = None if work is None else work * (high - low) // size
            return parallel_or_serial(high - low, share, step)
        return loops.serial(high - low, step)

    def pieces(flat: Expr) -> Stmt:
        return loops.seq(*[piece(low, high, flat) for low, high in pairwise(at)])

    if alone:
        return loops.serial(count, pieces)
    return parallel_or_serial(count, work, pieces)


def _parallel_axes(outer: list[Iter], target: CpuTarget) -> int:
    """Rule 5: how many of the outer axes, from the first on, share the threads."""
    for count in range(1, len(outer)):
        tasks = loops.as_int(loops.product([it.extent for it in outer[:count]]))
        if tasks is not None and tasks >= _TASKS * target.threads:
            return count
    return len(outer)


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


def _breakpoints(stage: Stage, it: Iter, size: int) -> list[int]:
    """Rule 3: where a comparison of one loop's variable with a constant changes."""
    points = {0, size}
    calls = [c for c in walk(stage.value, Call) if getattr(c.op, "name", "") == "prim.if_then_else"]
    for call in calls:
        for kind in (LT, LE, GT, GE, EQ):
            for compare in walk(call.args[0], kind):
                if not any(v.same_as(it.var) for v in walk(compare, Var)):
                    continue
                grows = loops.as_int(simplified(compare.a - compare.b - it.var))
                falls = loops.as_int(simplified(compare.b - compare.a - it.var))
                if grows is not None:
                    points.update(_CHANGES[kind](-grows))
                if falls is not None:
                    points.update(_CHANGES[_TURNED[kind]](-falls))
    inside = sorted(p for p in points if 0 <= p <= size)
    return inside if len(inside) <= MOST_RANGES + 1 else [0, size]


def _inner_loop(stage: Stage, inner: Iter, outer_at: dict[Var, Expr], target: CpuTarget) -> Stmt:
    size = inner.size
    if size is None:
        return loops.span(
            inner.extent, target.lanes, lambda i: _at(stage, {**outer_at, inner.var: i})
        )
    cuts = _breakpoints(stage, inner, size)
    if len(cuts) == 2:
        cuts = _decided_ranges(stage, inner) or cuts
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
            parallel_or_serial(
                full,
                open_work(stage),
                lambda p: loops.vector(lanes, lambda v: at(p * lanes + v)),
            ),
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
