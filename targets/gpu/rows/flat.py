"""Stages of a row over one axis of elements, and what they read of each other and of outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tvm.ir import Expr, TensorLoad, Var
from tvm.ir.prim import expr_deep_equal

from burnish.targets.cpu import loops
from burnish.targets.cpu.regrouped import joined
from burnish.targets.cpu.rows import RowGroup
from burnish.targets.cpu.stages import Iter, Program, Stage, loads, loads_of, replace_loads, walk

ZERO = loops.const(0)


def length_of(group: RowGroup) -> loops.Extent | None:
    """Elements of a row, the same for every stage that has any; ``None`` where none has, or they
    differ."""
    found: loops.Extent | None = None
    for stage in group.stages:
        inner = [*stage.spatial[group.rows :], *stage.reduce]
        if all(it.size == 1 for it in inner):
            continue
        length = loops.product([it.extent for it in inner])
        if found is not None and not loops.simplify_equal(found, length):
            return None
        found = length
    return found


def flat(stage: Stage, at: Sequence[Var], element: Var, length: loops.Extent) -> Stage:
    """``stage`` over the row's axes, by the variables ``at``, and one axis of elements.

    Axes of one element are no loops; what is reduced is one number, whatever axes it has.
    """
    where: dict[Var, Any] = {
        it.var: var for it, var in zip(stage.spatial[: len(at)], at, strict=True)
    }
    every = [*stage.spatial[len(at) :], *stage.reduce]
    where |= {it.var: ZERO for it in every if it.size == 1}
    inner = [it for it in every if it.size != 1]
    if inner:
        reads: list[Expr] = [stage.value]
        if stage.combine is None:
            reads.append(stage.out[tuple(stage.indices)])
        merged, became = joined(inner, reads)
        parts = loops.split_index(element, [it.extent for it in merged])
        runs = {it.var: part for it, part in zip(merged, parts, strict=True)}
        where |= {it.var: runs[it.var] for it in inner if it.var in runs}
        where |= {var: loops.substitute(value, runs) for var, value in became.items()}
    iters = (Iter(element, loops.times(length, 1)),) if inner else ()
    where = {var: _typed(value, var) for var, value in where.items()}
    indices = tuple(loops.substitute(index, where) for index in stage.indices)
    value = loops.substitute(stage.value, where)
    if stage.combine is not None:
        return replace(stage, spatial=(), reduce=iters, indices=indices, value=value)
    return replace(stage, spatial=iters, indices=indices, value=value)


def in_place(stages: Sequence[Stage]) -> bool:
    """Whether each element that a stage reads of another is made where it is read."""
    return all(
        _own(load, other)
        for stage in stages
        for other in stages
        if other.combine is None and other.spatial
        for load in loads_of(stage.value, other.out)
    )


def _own(load: TensorLoad, stage: Stage) -> bool:
    """Whether the element that is read is the one that ``stage`` makes there."""
    return all(loops.simplify_equal(a, b) for a, b in zip(load.indices, stage.indices, strict=True))


def handed(stage: Stage, stages: Sequence[Stage]) -> bool:
    """Whether later stages read elements of what ``stage`` makes."""
    return bool(stage.spatial) and any(loads_of(s.value, stage.out) for s in stages)


def recomputed(program: Program, stages: Sequence[Stage]) -> list[Stage]:
    """Stages that make elements of a row computed by each of their readers (rule 3)."""
    left: list[Stage] = []
    maps: dict[Var, Expr] = {}
    for stage in stages:
        now = replace(stage, value=with_values(stage.value, maps))
        if stage.combine is None and stage.spatial:
            maps[stage.out] = now.value
        if program.is_output(stage) or not (stage.combine is None and stage.spatial):
            left.append(now)
    return left


def with_values(value: Expr, known: Mapping[Var, Expr]) -> Expr:
    """``value`` with what is known of buffers in the place of loads, wherever they read."""
    for buffer, other in known.items():
        value = replace_loads(value, buffer, _always(other))
    return value


def _always(value: Expr) -> Callable[[list[Expr]], Expr]:
    return lambda _indices: value


def read_often(stages: Sequence[Stage], element: Var) -> list[TensorLoad]:
    """Loads from outside that several stages have."""
    made = [stage.out for stage in stages]
    found: list[tuple[TensorLoad, int]] = []
    for number, stage in enumerate(stages):
        for load in loads(stage.value):
            if not moves(load, element) or any(load.source.same_as(out) for out in made):
                continue
            if not any(same(load, other) and n == number for other, n in found):
                found.append((load, number))
    often: list[TensorLoad] = []
    for load, number in found:
        again = any(n != number and same(load, other) for other, n in found)
        if again and not any(same(load, other) for other in often):
            often.append(load)
    return often


def moves(load: TensorLoad, element: Var) -> bool:
    """Whether it reads another place for another element."""
    return any(v.same_as(element) for index in load.indices for v in walk(index, Var))


def same(a: TensorLoad, b: TensorLoad) -> bool:
    """Whether both read one place."""
    return a.source.same_as(b.source) and all(
        expr_deep_equal(x, y) for x, y in zip(a.indices, b.indices, strict=True)
    )


def _typed(value: Any, var: Var) -> Any:
    dtype = str(var.ty.dtype)
    return value if str(value.ty.dtype) == dtype else value.astype(dtype)


__all__ = [
    "ZERO",
    "flat",
    "handed",
    "in_place",
    "length_of",
    "moves",
    "read_often",
    "recomputed",
    "same",
    "with_values",
]
