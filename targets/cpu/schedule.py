"""The default schedule of a CPU kernel: rules tried in order on each stage of it.

1. ``rows``   stages that reduce trailing axes and work row by row (softmax, norms)
2. ``tiles``  a reduction with a contiguous column axis, and the store after it
3. ``folds``  any other reduction: one element at a time, elements in parallel
4. ``maps``   everything that only maps elements

A kernel that is not made of plain stages (sorting, scans, scatters) keeps its own loops, the
outermost independent one run in parallel.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import For, ForKind, Stmt

from ..target import CpuTarget
from . import loops, maps, rows, tiles
from .stages import Program, Stage, inlined, loads_of, read_program
from .vector_math import vectorized_math

SCHEDULED = "burnish.scheduled"
"""Function attribute of kernels that already are what they should be."""


def schedule(func: tirx.PrimFunc, target: CpuTarget) -> tirx.PrimFunc:
    """``func`` laid out for ``target``: same parameters, same results."""
    attrs = dict(func.attrs.items()) if func.attrs is not None else {}
    if SCHEDULED in attrs:
        return vectorized_math(func)
    program = read_program(func)
    if program is None:
        return vectorized_math(func)
    program = inlined(program)
    body = _emit(program, target)
    attrs = {str(k): v for k, v in attrs.items()}
    return vectorized_math(
        loops.prim_func(program.params, body, {**attrs, "s_tir": True, SCHEDULED: True})
    )


def _emit(program: Program, target: CpuTarget) -> Stmt:
    parts: list[Stmt] = []
    position = 0
    spilled: list[Stage] = []
    while position < len(program.stages):
        stage = program.stages[position]
        group = rows.match(program, position)
        if group is not None:
            parts.append(rows.emit(program, group, target))
            spilled.extend(s for s in group.stages[-1:] if not program.is_output(s))
            position += len(group.stages)
            continue
        following = _epilogue(program, position)
        if stage.combine is not None and following is not None:
            tiled = tiles.emit(program, stage, following, target)
            if tiled is not None:
                parts.append(tiled)
                if not program.is_output(following):
                    spilled.append(following)
                position += 2
                continue
        if not program.is_output(stage):
            spilled.append(stage)
        parts.append(_alone(program, stage, target))
        position += 1
    return loops.seq(*[loops.allocate(stage.out) for stage in spilled], *parts)


def _alone(program: Program, stage: Stage, target: CpuTarget) -> Stmt:
    if stage.combine is None:
        return maps.emit(program, stage, target)
    tiled = tiles.emit(program, stage, None, target)
    return tiled if tiled is not None else _fold(stage)


def _fold(stage: Stage) -> Stmt:
    """Rule 3."""
    extents = [it.extent for it in stage.spatial]
    assert stage.combine is not None
    combine = stage.combine

    def element(flat: Expr) -> Stmt:
        at = dict(
            zip([it.var for it in stage.spatial], loops.split_index(flat, extents), strict=True)
        )
        acc = loops.local([1], str(stage.out.dtype), "acc")
        zero = loops.const(0)

        def over(left: list[tuple[Var, Expr]], done: dict[Var, Expr]) -> Stmt:
            if left:
                (var, extent), *others = left
                return loops.serial(extent, lambda k: over(others, {**done, var: k}))
            value = loops.substitute(stage.value, done)
            return loops.store(acc, combine(acc[zero], value), [zero])

        return loops.seq(
            loops.allocate(acc),
            loops.store(acc, stage.init, [zero]),
            over([(it.var, it.extent) for it in stage.reduce], at),
            loops.store(stage.out, acc[zero], [loops.substitute(i, at) for i in stage.indices]),
        )

    return maps.parallel_or_serial(loops.product(extents), maps.work_of(stage), element)


def _epilogue(program: Program, position: int) -> Stage | None:
    """The next stage, if it is the only reader of the one at ``position``."""
    stage = program.stages[position]
    readers = program.readers(stage.out)
    if program.is_output(stage) or position + 1 >= len(program.stages) or len(readers) != 1:
        return None
    following = program.stages[position + 1]
    return following if readers[0] is following and loads_of(following.value, stage.out) else None
