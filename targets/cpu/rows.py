"""Rule for kernels that reduce the trailing axes and work row by row: softmax, layer norm, RMS
norm, sums and means over the last axis.

1. A row is one index of the leading axes that every stage shares; rows run in parallel, and
   within a row the stages run one after the other while its data is in the first-level cache.
2. A reduction runs in ``lanes`` x 4 partial results, so that it is limited by loads and not by
   the latency of one add; the partial results are folded at the end.
3. What stages of one row hand to each other lives in a buffer of that row only.
4. A row too long for such a buffer is kept in the output's row, where that is written last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops, maps
from burnish.targets.cpu.regrouped import grouped, joined
from burnish.targets.cpu.stages import (
    Iter,
    Program,
    Stage,
    loads,
    loads_of,
    replace_loads,
    same_indices,
    walk,
)
from burnish.targets.target import CpuTarget

_ROW_BYTES = 128 * 1024
_PARTIAL_VECTORS = 4
_WINDOW = 16
"""Elements below which a moving window is not a row."""


@dataclass(frozen=True)
class RowGroup:
    """Consecutive stages over the same ``rows`` leading axes."""

    stages: tuple[Stage, ...]
    rows: int


def match(program: Program, start: int) -> RowGroup | None:
    """The longest row group from stage ``start`` on, or ``None``."""
    best: RowGroup | None = None
    for end in range(start + 1, len(program.stages) + 1):
        now = grouped(program, start, end)
        group = now.stages[start:end]
        rows = _row_axes(group)
        if rows is None or not _is_group(now, group, rows):
            continue
        best = RowGroup(tuple(group), rows)
    return best


def _row_axes(group: tuple[Stage, ...]) -> int | None:
    """Leading axes that every stage shares: those before the first reduced one."""
    reductions = [stage for stage in group if stage.combine is not None]
    if not reductions:
        return None
    counts = set()
    for stage in reductions:
        spatial = list(stage.spatial)
        while spatial and spatial[-1].size == 1:
            spatial.pop()
        counts.add(len(spatial))
    return counts.pop() if len(counts) == 1 else None


def _is_group(program: Program, group: tuple[Stage, ...], rows: int) -> bool:
    first = next(stage for stage in group if stage.combine is not None)
    lead = [it.extent for it in first.spatial[:rows]]
    for stage in group:
        if stage.guards or len(stage.spatial) < rows:
            return False
        if not stage.identity() and not (stage is group[-1] and program.is_output(stage)):
            return False
        if any(
            not loops.simplify_equal(a.extent, b)
            for a, b in zip(stage.spatial[:rows], lead, strict=True)
        ):
            return False
        inner = [*stage.spatial[rows:], *stage.reduce]
        if stage.combine is not None and (not stage.reduce or not _contiguous(stage)):
            return False
        if any(it.size is None for it in inner) and not _may_be_symbolic(stage, rows):
            return False
        for other in group:
            for load in loads_of(stage.value, other.out):
                heads = list(load.indices)[:rows]
                mine = list(stage.spatial[:rows])
                if not all(
                    h.same_as(it.var) or it.size == 1 for h, it in zip(heads, mine, strict=True)
                ):
                    return False
    names = {id(s) for s in group}
    for stage in group:
        outside = [r for r in program.readers(stage.out) if id(r) not in names]
        if outside and not program.is_output(stage):
            return False
        if (
            stage is not group[-1]
            and not program.is_output(stage)
            and _row_bytes(stage, rows) is None
            and _overwriting(program, group, stage, rows) is None
        ):
            return False
    return True


def _may_be_symbolic(stage: Stage, rows: int) -> bool:
    """A symbolic row works when it is one axis and nothing of its length is kept aside."""
    symbolic = [it for it in [*stage.spatial[rows:], *stage.reduce] if it.size is None]
    return len(symbolic) == 1


def _contiguous(stage: Stage) -> bool:
    """Whether the innermost reduced axis walks memory in order in every operand that has it.

    A window of pooling does so only for a few elements, then jumps back: that is not meant.
    """
    var = stage.reduce[-1].var
    moving = [it.var for it in stage.spatial if it.size != 1]
    size = stage.reduce[-1].size
    if size is not None and size < _WINDOW:
        for load in loads(stage.value):
            inside = walk(load.indices[-1], Var) if load.indices else []
            if any(v.same_as(var) for v in inside) and any(
                v.same_as(m) for v in inside for m in moving
            ):
                return False
    used = False
    for load in loads(stage.value):
        *head, last = list(load.indices) or [None]
        if any(v.same_as(var) for h in head for v in walk(h, Var)):
            return False
        used = used or (last is not None and any(v.same_as(var) for v in walk(last, Var)))
    return used


def _row_bytes(stage: Stage, rows: int) -> int | None:
    """Bytes one row of an intermediate stage takes; ``None`` if unknown or too many."""
    count = loops.as_int(loops.product([it.extent for it in stage.spatial[rows:]]))
    if count is None or count * 4 > _ROW_BYTES:
        return None
    return count * 4


def emit(program: Program, group: RowGroup, target: CpuTarget) -> Stmt:
    """Statement computing a row group."""
    rows = group.rows
    extents = [it.extent for it in group.stages[0].spatial[:rows]]
    work: loops.Extent = 0
    for stage in group.stages:
        work = maps.open_work(stage) + work

    def row(flat: Expr) -> Stmt:
        at = loops.split_index(flat, extents)
        parts: list[Stmt] = []
        kept: dict[Var, _Place] = {}
        for stage in group.stages:
            later = _overwriting(program, group.stages, stage, rows)
            if later is not None and _row_bytes(stage, rows) is None:
                kept[stage.out] = _Place(later.out, at)
            elif not program.is_output(stage):
                shape = [it.extent for it in stage.spatial[rows:]] or [1]
                buffer = loops.local(shape, str(stage.out.dtype), stage.name)
                kept[stage.out] = _Place(buffer)
                parts.append(loops.allocate(buffer))
            parts.append(_stage_in_row(stage, rows, at, kept, target))
        return loops.seq(*parts)

    return maps.parallel_or_serial(loops.product(extents), work, row)


@dataclass(frozen=True)
class _Place:
    """Where a row of an intermediate stage is: ``buffer[*lead, *indices within the row]``."""

    buffer: Var
    lead: Sequence[Expr] = ()

    def at(self, inner: Sequence[Expr]) -> list[Expr]:
        return [*self.lead, *(inner or ([] if self.lead else [loops.const(0)]))]


def _overwriting(program: Program, group: Sequence[Stage], stage: Stage, rows: int) -> Stage | None:
    """The output stage whose memory may hold ``stage`` until it is written (rule 4)."""
    last = group[-1]
    if program.is_output(stage) or stage.combine is not None or last.combine is not None:
        return None
    if not program.is_output(last) or stage is last or not last.identity():
        return None
    same = str(stage.out.dtype) == str(last.out.dtype) and len(stage.spatial) == len(last.spatial)
    if not same or not all(
        loops.simplify_equal(a.extent, b.extent)
        for a, b in zip(stage.spatial, last.spatial, strict=True)
    ):
        return None
    own = [it.var for it in last.spatial]
    in_place = all(same_indices(load.indices, own) for load in loads_of(last.value, stage.out))
    others = any(
        other is not stage and other is not last and _overwritable(other, last, rows)
        for other in group
        if not program.is_output(other)
    )
    return last if in_place and not others else None


def _overwritable(stage: Stage, last: Stage, rows: int) -> bool:
    return stage.combine is None and _row_bytes(stage, rows) is None


def _stage_in_row(
    stage: Stage, rows: int, at: list[Expr], kept: dict[Var, _Place], target: CpuTarget
) -> Stmt:
    mapping = {it.var: index for it, index in zip(stage.spatial[:rows], at, strict=True)}
    value = stage.value
    for old, place in kept.items():
        if loads_of(value, old):
            value = replace_loads(value, old, _tail_of(place, rows))
    value = loops.substitute(value, mapping)
    inner = list(stage.spatial[rows:])
    own = kept.get(stage.out)
    if own is not None:
        out, indices = own.buffer, own.at([it.var for it in inner])
    else:
        out = stage.out
        indices = [loops.substitute(index, mapping) for index in stage.indices]
    if stage.combine is None:
        return _map_row(inner, value, out, indices, target)
    zeros = {it.var: loops.const(0) for it in inner}
    value = loops.substitute(value, zeros)
    indices = [loops.substitute(index, zeros) for index in indices]
    return _fold_row(stage, value, lambda new: loops.store(out, new, indices), target)


def _tail_of(place: _Place, rows: int) -> Callable[[list[Expr]], Expr]:
    return lambda indices: place.buffer[tuple(place.at(indices[rows:]))]


def _map_row(
    inner: list[Iter], value: Expr, out: Var, indices: list[Expr], target: CpuTarget
) -> Stmt:
    if not inner:
        return loops.store(out, value, indices)
    inner, became = joined(inner, [value, out[tuple(indices)]])
    value = loops.substitute(value, became)
    indices = [loops.substitute(index, became) for index in indices]
    *outer, last = inner

    def over(left: list[Iter], done: dict[Var, Expr]) -> Stmt:
        if left:
            it, *others = left
            return loops.serial(
                it.size if it.size is not None else it.extent,
                lambda i: over(others, {**done, it.var: i}),
            )

        def element(i: Expr) -> Stmt:
            mapping = {**done, last.var: i}
            place = [loops.substitute(index, mapping) for index in indices]
            return loops.store(out, loops.substitute(value, mapping), place)

        return loops.span(last.extent, target.lanes, element)

    return over(outer, {})


def _fold_row(stage: Stage, value: Expr, put: Callable[[Expr], Stmt], target: CpuTarget) -> Stmt:
    """Rule 2."""
    iters, became = joined(stage.reduce, [value])
    value = loops.substitute(value, became)
    *outer, last = iters
    lanes, width = target.lanes, target.lanes * _PARTIAL_VECTORS
    dtype = str(stage.out.dtype)
    partial = loops.local([width], dtype, "partial")
    assert stage.combine is not None
    combine, init = stage.combine, stage.init

    def fold(slot: Expr, i: Expr, done: dict[Var, Expr]) -> Stmt:
        new = loops.substitute(value, {**done, last.var: i})
        return loops.store(partial, combine(partial[slot], new), [slot])

    def over(left: list[Iter], done: dict[Var, Expr]) -> Stmt:
        if left:
            it, *others = left
            return loops.serial(
                it.size if it.size is not None else it.extent,
                lambda i: over(others, {**done, it.var: i}),
            )
        parts: list[Stmt] = []
        wide, rest = loops.divide(last.extent, width)
        parts.append(
            loops.serial(
                wide,
                lambda b: loops.vectors(width, lanes, lambda v: fold(v, b * width + v, done)),
            )
        )
        narrow, single = loops.divide(rest, lanes)
        parts.append(
            loops.serial(
                narrow,
                lambda b: loops.vector(
                    lanes, lambda v: fold(v, loops.times(wide, width) + b * lanes + v, done)
                ),
            )
        )
        start = loops.times(wide, width) + loops.times(narrow, lanes)
        parts.append(loops.serial(single, lambda r: fold(loops.const(0), start + r, done)))
        return loops.seq(*parts)

    clear = loops.vectors(width, lanes, lambda v: loops.store(partial, init, [v]))
    return loops.seq(
        loops.allocate(partial),
        clear,
        over(outer, {}),
        folded(partial, width, lanes, combine),
        put(partial[loops.const(0)]),
    )


def folded(partial: Var, width: int, lanes: int, combine: Callable[[Expr, Expr], Expr]) -> Stmt:
    """Fold ``partial [width]`` into its first element, halving; ``width`` is a power of two."""
    parts: list[Stmt] = []
    step = width
    while step > 1:
        step //= 2
        parts.append(
            loops.vectors(
                step,
                lanes,
                lambda v, step=step: loops.store(  # type: ignore[misc]
                    partial, combine(partial[v], partial[v + step]), [v]
                ),
            )
        )
    return loops.seq(*parts)
