"""Stages written over other loops: channels taken apart into groups, loops over one run joined.

Neither changes what is stored: a loop variable becomes an expression of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.ir.prim import FloorDiv

from burnish.targets.cpu import loops
from burnish.targets.cpu.stages import Iter, Program, Stage, loads, simplified, walk


def grouped(program: Program, start: int, end: int) -> Program:
    """``program`` whose stage before ``end``, if it reads statistics of groups, loops over groups.

    ``y[n, c] = f(x[n, c], mean[n, c // 8])`` becomes ``y[n, 8 g + k] = f(..., mean[n, g])`` over
    ``n, g, k``, whose leading loops are those of the statistics: stages from ``start`` on.
    """
    last = program.stages[end - 1]
    inside = [stage.out for stage in program.stages[start : end - 1]]
    if last.combine is not None or not inside or not program.is_output(last):
        return program
    while (found := _group(last, inside)) is not None:
        last = _split(last, *found)
    return replace(program, stages=(*program.stages[: end - 1], last, *program.stages[end:]))


def _group(stage: Stage, inside: Sequence[Var]) -> tuple[Iter, int] | None:
    """A loop divided to find a place in one of the buffers ``inside``, and by how much."""
    for load in loads(stage.value):
        if not any(load.source.same_as(buffer) for buffer in inside):
            continue
        for index in load.indices:
            if not isinstance(index, FloorDiv):
                continue
            by = loops.as_int(index.b)
            for it in stage.spatial:
                if by and index.a.same_as(it.var) and it.size and it.size % by == 0:
                    return it, by
    return None


def _split(stage: Stage, it: Iter, by: int) -> Stage:
    """``stage`` with one loop as two, the inner of ``by`` steps."""
    dtype, size = str(it.var.ty.dtype), it.size or 0
    outer = Iter(Var("g", dtype), loops.const(size // by, dtype))
    inner = Iter(Var("k", dtype), loops.const(by, dtype))
    where = {it.var: outer.var * by + inner.var}
    spatial: list[Iter] = []
    for other in stage.spatial:
        spatial += [outer, inner] if other is it else [other]
    bounds = {i.var: (0, i.size) for i in spatial if i.size is not None}
    return replace(
        stage,
        spatial=tuple(spatial),
        indices=tuple(loops.substitute(index, where) for index in stage.indices),
        value=simplified(loops.substitute(stage.value, where), bounds),
    )


def joined(iters: Sequence[Iter], parts: Sequence[Expr]) -> tuple[list[Iter], dict[Var, Expr]]:
    """Neighbouring loops that walk memory as one run, as one loop; what their variables become.

    ``parts`` are the expressions computed inside: values, and loads that stand for stores.
    """
    left = list(iters)
    became: dict[Var, Expr] = {}
    for at in reversed(range(1, len(left))):
        first, second = left[at - 1], left[at]
        if first.size is None or second.size is None or not _one_run(first, second, parts, became):
            continue
        dtype = str(second.var.ty.dtype)
        both = Iter(Var("run", dtype), loops.const(first.size * second.size, dtype))
        split = {
            first.var: tirx.floordiv(both.var, second.size),
            second.var: tirx.floormod(both.var, second.size),
        }
        became = {var: loops.substitute(value, split) for var, value in became.items()} | split
        left[at - 1 : at + 1] = [both]
    return left, became


def _one_run(first: Iter, second: Iter, parts: Sequence[Expr], became: dict[Var, Expr]) -> bool:
    """Whether every access of both moves through memory as one loop over both would."""
    inner = [second.var, *[var for var, value in became.items() if _uses(value, second.var)]]
    for part in parts:
        outside = tvm_ffi.structural_map(
            part, [(TensorLoad, lambda load: tirx.const(0, str(load.ty.dtype)))], order="post"
        )
        if any(_uses(outside, var) for var in (first.var, *inner)):
            return False
        for load in walk(part, TensorLoad):
            indices, shape = list(load.indices), list(load.source.shape)
            users = [p for p, index in enumerate(indices) if any(_uses(index, v) for v in inner)]
            outer = [p for p, index in enumerate(indices) if _uses(index, first.var)]
            if not users and not outer:
                continue
            if len(outer) != 1 or users != list(range(outer[0] + 1, outer[0] + 1 + len(users))):
                return False
            if not _adds(indices[outer[0]], first.var):
                return False
            plain = all(any(indices[p].same_as(v) for v in inner) for p in users)
            size = loops.as_int(loops.product([shape[p] for p in users]))
            if not plain or size != second.size:
                return False
    return True


def _uses(value: Expr, var: Var) -> bool:
    return any(v.same_as(var) for v in walk(value, Var))


def _adds(index: Expr, var: Var) -> bool:
    """Whether ``index`` grows by one with ``var``."""
    return not _uses(simplified(index - var), var)
