"""A kernel as one sum of products and what follows it: what rules for few rows start from.

``out[finish(b, i, j)] = epilogue(sum_k left[b, i, k] * right[b, j, k])``, each of the four axes
several loops or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir.prim import Add, Mul
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.stages import (
    Iter,
    Program,
    Stage,
    is_conditional,
    is_heavy,
    loads_of,
    read_program,
    replace_loads,
    same_indices,
    simplified,
    walk,
)


@dataclass(frozen=True)
class Contraction:
    """``batch`` is what both operands are read by, ``rows`` the left alone, ``columns`` the right.

    Loops of one step are in none of them. ``sums`` is the type of the sum.
    """

    batch: tuple[Iter, ...]
    rows: tuple[Iter, ...]
    columns: tuple[Iter, ...]
    depth: tuple[Iter, ...]
    left: Expr
    right: Expr
    sums: str
    main: Stage
    last: Stage | None

    def count(self, axis: str) -> loops.Extent:
        """Steps along ``batch``, ``rows``, ``columns`` or ``depth``."""
        return loops.product([it.extent for it in getattr(self, axis)])

    def turned(self) -> Contraction:
        """The same with the operands in each other's place."""
        return replace(self, rows=self.columns, columns=self.rows, left=self.right, right=self.left)

    def at(self, axis: str, flat: Any) -> dict[Var, Any]:
        """The loop variables of an axis at its step ``flat``."""
        found = getattr(self, axis)
        places = loops.split_index(flat, [it.extent for it in found])
        return {it.var: place for it, place in zip(found, places, strict=True)}

    def store(self, total: Expr, at: dict[Var, Any]) -> Stmt:
        """What is done with the sum at a place: the epilogue, and the output's element."""
        zero = loops.const(0)
        place = [at.get(it.var, zero) for it in self.main.spatial]
        if self.last is None:
            return loops.store(self.main.out, total, place)
        outer = _inverse(self.main, self.last, place)
        assert outer is not None
        value = replace_loads(self.last.value, self.main.out, lambda _indices: total)
        indices = [loops.substitute(index, outer) for index in self.last.indices]
        return loops.store(self.last.out, loops.substitute(value, outer), indices)


def read_contraction(func: tirx.PrimFunc) -> Contraction | None:
    """``func`` as a contraction with at most one loop nest of maps after it, or ``None``.

    Maps before it (codes that become weights) are part of the operands.
    """
    program = read_program(func)
    if program is None:
        return None
    stages = all_inlined(program)
    if stages is None or not 1 <= len(stages) <= 2:
        return None
    main, last = stages[0], stages[1] if len(stages) == 2 else None
    if main.combine is None or main.guards or not main.identity() or not _is_sum(main):
        return None
    if not isinstance(main.value, Mul) or is_conditional(main.value) or is_heavy(main.value):
        return None
    if last is not None and not _follows(main, last):
        return None
    left, right = main.value.a, main.value.b
    every = (*main.spatial, *main.reduce)
    ones = {it.var: loops.const(0) for it in every if it.size == 1}
    left, right = (loops.substitute(side, ones) for side in (left, right))
    in_left, in_right = (set(walk(side, Var)) for side in (left, right))
    groups: dict[str, list[Iter]] = {"batch": [], "rows": [], "columns": [], "depth": []}
    for it in every:
        if it.var in ones:
            continue
        here = (it.var in in_left, it.var in in_right)
        if it in main.reduce:
            if here != (True, True):
                return None
            groups["depth"].append(it)
        elif here == (False, False):
            return None
        else:
            name = "batch" if all(here) else "rows" if here[0] else "columns"
            groups[name].append(it)
    if not groups["depth"]:
        return None
    found = {name: tuple(its) for name, its in groups.items()}
    return Contraction(
        **found, left=left, right=right, sums=str(main.out.dtype), main=main, last=last
    )


def all_inlined(program: Program) -> list[Stage] | None:
    """The stages with every map computed where it is read; ``None`` where one cannot be."""
    stages = list(program.stages)
    position = 0
    while position < len(stages):
        stage = stages[position]
        if stage.combine is not None or program.is_output(stage):
            position += 1
            continue
        if not stage.identity():
            return None
        stages = [
            replace(other, value=replace_loads(other.value, stage.out, stage.value_at))
            if loads_of(other.value, stage.out)
            else other
            for other in stages
            if other is not stage
        ]
    return stages


def _is_sum(stage: Stage) -> bool:
    assert stage.combine is not None
    one = Var("one", str(stage.out.dtype))
    return isinstance(stage.combine(one, one), Add) and getattr(stage.init, "value", None) == 0


def _follows(main: Stage, last: Stage) -> bool:
    """Whether each element of ``last`` is of one sum, and each sum of one element."""
    if last.combine is not None:
        return False
    zero = loops.const(0)
    return _inverse(main, last, [zero] * len(main.spatial)) is not None


def _inverse(main: Stage, last: Stage, place: Sequence[Any]) -> dict[Var, Any] | None:
    """The loop variables of ``last`` that read the sum at ``place``."""
    read = loads_of(last.value, main.out)
    if not read or not all(same_indices(load.indices, read[0].indices) for load in read):
        return None
    zero = loops.const(0)
    indices = list(read[0].indices)
    spatial = {it.var: it for it in last.spatial}
    found: dict[Var, Any] = {}
    for index, it, at in zip(indices, main.spatial, place, strict=True):
        if isinstance(index, Var) and index in spatial and index not in found:
            if not loops.simplify_equal(spatial[index].extent, it.extent):
                break
            found[index] = at
        elif it.size != 1:
            break
    else:
        missing = [it for it in last.spatial if it.var not in found]
        if all(it.size == 1 for it in missing):
            return {**found, **{it.var: zero for it in missing}}
    return _reshaped(main, last, indices, place)


def _reshaped(
    main: Stage, last: Stage, indices: Sequence[Any], place: Sequence[Any]
) -> dict[Var, Any] | None:
    """As :func:`_inverse`, where ``last`` reads the sums in order, in another shape."""
    theirs = [it.extent for it in last.spatial]
    ours = [it.extent for it in main.spatial]
    if not loops.simplify_equal(loops.product(theirs), loops.product(ours)):
        return None
    bounds = {it.var: (0, it.extent) for it in last.spatial}
    own = [it.var for it in last.spatial]
    difference = flat_index(indices, ours) - flat_index(own, theirs)
    if loops.as_int(simplified(difference, bounds)) != 0:
        return None
    flat = flat_index(place, ours)
    return dict(zip(own, loops.split_index(flat, theirs), strict=True))


def flat_index(indices: Sequence[Any], extents: Sequence[Any]) -> Any:
    """Row-major place: ``[i, j], [a, b] -> i * b + j``."""
    flat: Any = loops.const(0)
    for index, extent in zip(indices, extents, strict=True):
        flat = flat * extent + index
    return flat
