"""Padding without a pass of its own: terms outside the data are left out of the reduction.

A stage that surrounds data with a constant, read by one reduction to which that constant adds
nothing (zero factors of a sum of products, the lowest number of a maximum), is taken out; the
reduction then reads the data itself and carries :class:`Guard` values saying which of its terms
exist. Each guarded index must depend on one reduced axis at most, and either on the axis of the
register tile's rows or on axes outside the tile, so that the ``tiles`` rule can turn guards into
loop bounds and into tiles of their own at the borders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import Call, Expr, TensorLoad, Var
from tvm.ir.prim import GE, GT, LE, LT, Add, And, Max, Min, Mul

from burnish.targets.cpu import loops
from burnish.targets.cpu.stages import (
    Guard,
    Iter,
    Program,
    Stage,
    loads_of,
    replace_loads,
    simplified,
    walk,
)

Accepts = Callable[[Stage, Stage | None], bool]


def without_padding(program: Program, accepts: Accepts) -> Program:
    """``program`` with its padding stages absorbed by the reductions that read them.

    ``accepts(stage, following)`` says whether the guarded reduction can be laid out.
    """
    stages = list(program.stages)
    position = 0
    while position + 1 < len(stages):
        current = replace(program, stages=tuple(stages))
        guarded = _absorbed(current, stages[position], stages[position + 1])
        following = stages[position + 2] if position + 2 < len(stages) else None
        if guarded is not None and accepts(guarded, following):
            stages[position : position + 2] = [guarded]
        else:
            position += 1
    return replace(program, stages=tuple(stages))


def infinite_padding(program: Program) -> Program:
    """``program`` with infinity where TVM pads the input of a maximum with the lowest number."""
    stages = list(program.stages)
    for position, stage in enumerate(stages):
        call = stage.value
        readers = program.readers(stage.out)
        if not isinstance(call, Call) or getattr(call.op, "name", "") != "prim.if_then_else":
            continue
        inits = [reader.init for reader in readers if reader.combine is not None]
        if program.is_output(stage) or not inits or len(inits) != len(readers):
            continue
        condition, inside, filling = call.args
        limits = {getattr(init, "value", None) for init in inits}
        limit = limits.pop() if len(limits) == 1 else None
        if isinstance(limit, float) and math.isinf(limit) and _same_number(filling, inits[0]):
            value = tirx.if_then_else(condition, inside, inits[0])
            stages[position] = replace(stage, value=value)
    return replace(program, stages=tuple(stages))


def _absorbed(program: Program, pad: Stage, main: Stage) -> Stage | None:
    if pad.combine is not None or main.combine is None or main.guards:
        return None
    if not pad.identity() or program.is_output(pad):
        return None
    readers = program.readers(pad.out)
    if len(readers) != 1 or readers[0] is not main:
        return None
    call = pad.value
    if not isinstance(call, Call) or getattr(call.op, "name", "") != "prim.if_then_else":
        return None
    condition, inside, filling = call.args
    bounds = _bounds(condition, [it.var for it in pad.spatial])
    found = loads_of(main.value, pad.out)
    if bounds is None or len(found) != 1 or not _adds_nothing(main, found[0], filling):
        return None
    indices = list(found[0].indices)
    variables = [it.var for it in pad.spatial]
    at = dict(zip(variables, indices, strict=True))
    value = replace_loads(main.value, pad.out, lambda _indices: loops.substitute(inside, at))
    guards = tuple(
        Guard(indices[axis], low, high if high is not None else pad.spatial[axis].extent)
        for axis, (low, high) in bounds.items()
    )
    return replace(main, value=value, guards=guards)


def _bounds(
    condition: Expr, variables: Sequence[Var]
) -> dict[int, tuple[Expr, Expr | None]] | None:
    """``axis -> (low, high)`` of a conjunction of ``low <= v`` and ``v < high``, else ``None``."""
    bounds: dict[int, tuple[Expr, Expr | None]] = {}
    terms = _conjuncts(condition)
    for term in terms:
        if not isinstance(term, (LT, LE, GT, GE)):
            return None
        small, large, strict = term.a, term.b, isinstance(term, (LT, GT))
        if isinstance(term, (GT, GE)):
            small, large = large, small
        above = [axis for axis, v in enumerate(variables) if large.same_as(v)]
        below = [axis for axis, v in enumerate(variables) if small.same_as(v)]
        if len(above) + len(below) != 1:
            return None
        axis = (above or below)[0]
        low, high = bounds.get(axis, (loops.const(0), None))
        if above:
            low = small + 1 if strict else small
        else:
            high = large if strict else large + 1
        bounds[axis] = (simplified(low), None if high is None else simplified(high))
    limits = [limit for pair in bounds.values() for limit in pair if limit is not None]
    if any(v.same_as(u) for limit in limits for u in walk(limit, Var) for v in variables):
        return None
    return bounds or None


def _conjuncts(condition: Expr) -> list[Expr]:
    if isinstance(condition, And):
        return [*_conjuncts(condition.a), *_conjuncts(condition.b)]
    return [condition]


def _adds_nothing(main: Stage, load: TensorLoad, filling: Expr) -> bool:
    """Whether a term with ``filling`` in place of the data leaves the reduction as it is."""
    assert main.combine is not None
    probe = tirx.Var("probe", str(main.out.dtype))
    kind = type(main.combine(probe, probe + 1))
    if kind in (Max, Min):
        return main.value.same_as(load) and _same_number(filling, main.init)
    if kind is not Add or not _is_zero(filling):
        return False
    factors = [main.value.a, main.value.b] if isinstance(main.value, Mul) else [main.value]
    return any(factor.same_as(load) for factor in factors)


def _is_zero(value: Expr) -> bool:
    return getattr(value, "value", None) == 0


def _same_number(a: Expr, b: Expr) -> bool:
    """Whether ``a`` is ``b``, or the finite number that TVM pads with where ``b`` is infinite."""
    first, second = getattr(a, "value", None), getattr(b, "value", None)
    if first is None or second is None:
        return False
    if math.isinf(second):
        dtype = str(a.ty.dtype)
        ends = tirx.min_value(dtype).value, tirx.max_value(dtype).value
        return first == second or first == ends[second > 0]
    return first == second


@dataclass(frozen=True)
class Reach:
    """A guard as a register tile meets it: ``index = base + step * k`` over one reduced axis.

    ``k`` is ``None`` where no reduced axis takes part. A guard of the tile's rows has
    ``rows = (stride, offset, low, high)``: ``low <= stride * row + step * k + offset < high``.
    """

    guard: Guard
    k: Var | None
    step: int
    rows: tuple[int, int, int, int] | None

    def covers(self, row: int, k: int) -> bool:
        """Whether the term ``k`` of ``row`` exists; for guards of the rows."""
        assert self.rows is not None
        stride, offset, low, high = self.rows
        return low <= stride * row + self.step * k + offset < high

    def span(self, at: dict[Var, Expr], extent: int) -> tuple[Expr, Expr]:
        """``[first, last)`` of the reduced axis whose terms exist; other variables as ``at``."""
        assert self.k is not None
        base = loops.substitute(self.guard.index, {**at, self.k: loops.const(0)})

        if self.step == 1:
            first = tirx.max(loops.const(0), self.guard.low - base)
            last = tirx.min(loops.const(extent), self.guard.high - base)
            return simplified(first), simplified(last)

        # Counted, not divided: TVM's code for a quotient that may be negative is wrong where an
        # index has it twice.
        def below(limit: Expr) -> Expr:
            total: Expr = loops.const(0)
            for k in range(extent):
                total = total + (base + self.step * k < limit).astype("int64")
            return total

        first, last = below(self.guard.low), below(self.guard.high)
        return simplified(first), simplified(last)

    def holds(self, at: dict[Var, Expr]) -> Expr:
        """The guard as a condition."""
        return loops.substitute(self.guard.condition, at)


def reaches(stage: Stage, outer: Sequence[Iter], row: Iter | None) -> tuple[Reach, ...] | None:
    """The guards of ``stage`` for a tile whose rows are ``row``, at one index of the axes
    ``outer``; ``None`` if one does not fit.
    """
    rows = row.var if row is not None else None
    found: list[Reach] = []
    for guard in stage.guards:
        used = walk(guard.index, Var)
        reduced = [it for it in stage.reduce if any(v.same_as(it.var) for v in used)]
        known = [it.var for it in (*outer, *([row] if row is not None else []), *stage.reduce)]
        if len(reduced) > 1 or not all(any(v.same_as(k) for k in known) for v in used):
            return None
        k = reduced[0].var if reduced else None
        if k is not None and (
            reduced[0].size is None or any(r.k is not None and r.k.same_as(k) for r in found)
        ):
            return None
        of_row = rows is not None and any(v.same_as(rows) for v in used)
        if of_row and len({v for v in used if k is None or not v.same_as(k)}) > 1:
            return None
        step = _slope(guard.index, k) if k is not None else 0
        if step is None or step < 0 or (k is not None and step == 0):
            return None
        terms = None
        if of_row and rows is not None:
            terms = _row_terms(guard, rows, k, step)
            if terms is None:
                return None
        found.append(Reach(guard, k, step, terms))
    return tuple(found)


def _row_terms(
    guard: Guard, row: Var, k: Var | None, step: int
) -> tuple[int, int, int, int] | None:
    zeros = {v: loops.const(0) for v in (row, k) if v is not None}
    stride = _slope(guard.index, row)
    offset = loops.as_int(simplified(loops.substitute(guard.index, zeros)))
    low, high = loops.as_int(guard.low), loops.as_int(guard.high)
    if stride is None or offset is None or low is None or high is None:
        return None
    return stride, offset, low, high


def _slope(index: Expr, var: Var) -> int | None:
    """``a`` of ``index = a * var + rest``, or ``None`` if it is not affine in ``var``."""
    at_zero = loops.substitute(index, {var: loops.const(0)})
    at_one = loops.substitute(index, {var: loops.const(1)})
    slope = loops.as_int(simplified(at_one - at_zero))
    if slope is None:
        return None
    rest = loops.as_int(simplified(index - at_zero - var * slope))
    return slope if rest == 0 else None
