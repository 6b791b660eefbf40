"""Rule for reductions whose innermost spatial axis is contiguous: packed GEMM, convolution,
depthwise convolution, pooling, column sums.

A register tile of ``MR`` rows by ``NB`` columns is accumulated over the whole reduction and
stored once, with everything fused after it computed on the way out.

1. Columns: the last spatial axis; for packed weights the pair ``(N // NB, NB)`` of the last two.
   Rows: the spatial axis before the columns.
2. ``MR`` fills the vector registers: ``MR * V`` accumulators, ``V = NB / lanes`` weights and one
   broadcast must fit; among those that fit, the one whose tiles, the last narrower one included,
   cost fewest cycles, where a tile costs ``max(MR * V, MR + V)`` a step (one multiply-add or one
   load a cycle).
3. Tails: the last row tile is a tile of its own (static shapes) or reads the last row again and
   stores nothing (symbolic shapes); the last column tile stores only what exists.
4. Order: weights are streamed once if they are the larger side, else activations are.
5. Weights that must be computed first (integer codes) are converted a column block at a time
   into a panel that stays in the core's cache, once for all row tiles of a task, so that a
   quantized GEMM runs at the speed of a plain one; no copy of the whole weight is made.
6. Long sums are taken in runs of ``RUN`` terms, each added to a total kept in the first-level
   cache, so that rounding errors grow with the square root of the run and not of the whole.
7. Reductions short enough to unroll (depthwise, pooling) are, so that overlapping windows share
   loads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.ir.prim import Add, Mul
from tvm.tirx import Stmt

from burnish.targets.cpu import loops, maps
from burnish.targets.cpu.stages import (
    Iter,
    Program,
    Stage,
    loads,
    loads_of,
    replace_loads,
    same_indices,
    simplified,
    walk,
)
from burnish.targets.target import CpuTarget

_UNROLLED_STEPS = 64
RUN = 256
"""Terms summed in registers before they join the total (rule 6)."""
_PANEL_TILES = 4
"""Row tiles from which on converting a panel first costs less than converting in each."""


@dataclass(frozen=True)
class Tiling:
    """Choices of rules 2 and 4 to take instead of the rules' own; for tuning."""

    rows: int | None = None
    columns_outside: bool | None = None


@dataclass(frozen=True)
class _Plan:
    """One tiled reduction: ``outer`` x ``row`` x ``column blocks``, and the store after it."""

    main: Stage
    final: Stage | None
    outer: tuple[Iter, ...]
    row: Iter | None
    block: Iter | None
    column: Iter
    width: int
    lanes: int
    columns: int
    tiling: Tiling

    @property
    def blocks(self) -> int:
        return -(-self.columns // self.width)


def emit(
    program: Program,
    main: Stage,
    final: Stage | None,
    target: CpuTarget,
    tiling: Tiling,
) -> Stmt | None:
    """Statement computing ``main`` and, if it can be fused, ``final``; ``None`` if it cannot."""
    plan = _plan(main, final, target, tiling)
    return None if plan is None else _emit(plan, target)


def packed_width(stage: Stage) -> int | None:
    """``NB`` of a reduction over packed weights, which the lowering pass notes on the block."""
    value = stage.attrs.get("burnish.packed")
    return None if value is None else int(value)


def _plan(main: Stage, final: Stage | None, target: CpuTarget, tiling: Tiling) -> _Plan | None:
    if main.combine is None or not main.identity() or not main.spatial:
        return None
    packed = packed_width(main)
    iters = list(main.spatial)
    if packed is not None:
        if final is None:
            return None
        column, block = iters[-1], iters[-2]
        rest = iters[:-2]
        columns = final.spatial[-1].size
        width = packed
    else:
        column, block = iters[-1], None
        rest = iters[:-1]
        columns = column.size
        if columns is None:
            return None
        width = _width(columns, target)
    if columns is None:
        return None
    row = None
    outer = list(rest)
    for position in reversed(range(len(rest))):
        if rest[position].size != 1:
            row = outer.pop(position)
            break
    if final is not None and not _stores_alike(main, final, packed):
        return None
    lanes = min(target.lanes, width)
    return _Plan(main, final, tuple(outer), row, block, column, width, lanes, columns, tiling)


def _width(columns: int, target: CpuTarget) -> int:
    lanes = target.lanes
    for vectors in (4, 2, 1):
        if columns >= vectors * lanes and (columns % (vectors * lanes) == 0 or vectors == 4):
            return vectors * lanes
    return min(lanes, columns) if columns < lanes else lanes


def _stores_alike(main: Stage, final: Stage, packed: int | None) -> bool:
    """Whether ``final`` reads ``main`` only at its own element (rule 1)."""
    if final.combine is not None or not final.identity():
        return False
    mine = [it.var for it in final.spatial]
    expected: list[Expr] = list(mine)
    if packed is not None:
        if not mine:
            return False
        expected = [*mine[:-1], tirx.floordiv(mine[-1], packed), tirx.floormod(mine[-1], packed)]
    zeros = {it.var: loops.const(0) for it in final.spatial if it.size == 1}
    for load in loads_of(final.value, main.out):
        got = [simplified(loops.substitute(index, zeros)) for index in load.indices]
        want = [simplified(loops.substitute(index, zeros)) for index in expected]
        if not same_indices(got, want):
            return False
    extents = [it.extent for it in main.spatial]
    if packed is not None:
        extents = extents[:-2]
    theirs = [it.extent for it in final.spatial][: len(extents)]
    return len(final.spatial) == len(extents) + (1 if packed is not None else 0) and same_indices(
        extents, theirs
    )


def choose_rows(rows: int | None, vectors: int, registers: int) -> int:
    """``MR`` by rule 2."""
    most = max(1, (registers - vectors - 1) // vectors)
    if rows is None:
        return max(1, min(most, 8 if vectors <= 2 else 6))

    def cost(mr: int) -> float:
        def tile(r: int) -> float:
            return max(r * vectors, r + vectors, 4) + 1 if r else 0

        return (rows // mr) * tile(mr) + tile(rows % mr)

    most = min(most, 16)
    return min(range(1, most + 1), key=lambda mr: (cost(mr), -mr))


def _emit(plan: _Plan, target: CpuTarget) -> Stmt:
    vectors = -(-plan.width // plan.lanes)
    rows: loops.Extent = plan.row.extent if plan.row is not None else 1
    row_count = loops.as_int(rows)
    rows = row_count if row_count is not None else rows
    mr = plan.tiling.rows or choose_rows(row_count, vectors, target.registers)
    row_tiles: loops.Extent
    if row_count is not None:
        mr = min(mr, row_count)
        row_tiles = -(-row_count // mr)
    else:
        row_tiles = tirx.floordiv(rows + (mr - 1), mr)
    outer_extents = [it.extent for it in plan.outer]
    outer = loops.product(outer_extents)
    places = loops.product([outer, row_tiles])
    if plan.block is not None and _needs_panel(plan, places):
        return _emit_with_panel(plan, target, mr, row_count, rows, row_tiles)
    tasks = loops.product([outer, row_tiles, plan.blocks])

    def tile_at(p: Expr) -> Stmt:
        if _columns_outside(plan):
            block, place = split_two(p, loops.product([outer, row_tiles]))
        else:
            place, block = split_two(p, plan.blocks)
        return _tile_at_place(plan, place, mr, row_count, rows, row_tiles, block)

    return maps.parallel_or_serial(tasks, maps.work_of(plan.main), tile_at)


def _tile_at_place(
    plan: _Plan,
    place: Expr,
    mr: int,
    row_count: int | None,
    rows: loops.Extent,
    row_tiles: loops.Extent,
    block: Expr,
) -> Stmt:
    """The tile number ``place`` of outer indices by row tiles; the last one may be narrower."""
    around, tile = split_two(place, row_tiles)
    at = loops.split_index(around, [it.extent for it in plan.outer])
    mapping = dict(zip([it.var for it in plan.outer], at, strict=True))
    if row_count is None:
        return _tile(plan, mapping, tile * mr, mr, block, limit=rows)
    rest = row_count % mr
    if not rest:
        return _tile(plan, mapping, tile * mr, mr, block)
    whole = row_count // mr
    last = _tile(plan, mapping, loops.const(whole * mr), rest, block)
    if whole == 0:
        return last
    return loops.branch(tile < whole, _tile(plan, mapping, tile * mr, mr, block), last)


def _needs_panel(plan: _Plan, places: loops.Extent) -> bool:
    """Rule 5: weights are computed, and read by enough row tiles to pay for the panel."""
    value = plan.main.value
    if not isinstance(value, Mul) or isinstance(value.b, TensorLoad):
        return False
    row_vars = [it.var for it in (*plan.outer, *((plan.row,) if plan.row else ()))]
    if any(v.same_as(row) for v in walk(value.b, Var) for row in row_vars):
        return False
    known = loops.as_int(places)
    return known is None or known >= _PANEL_TILES


def _emit_with_panel(
    plan: _Plan,
    target: CpuTarget,
    mr: int,
    row_count: int | None,
    rows: loops.Extent,
    row_tiles: loops.Extent,
) -> Stmt:
    main = plan.main
    assert isinstance(main.value, Mul)
    assert plan.block is not None
    places = loops.product([*(it.extent for it in plan.outer), row_tiles])
    known = loops.as_int(places)
    chunks = 1
    if known is not None and plan.blocks < 2 * target.threads:
        chunks = max(1, min(-(-2 * target.threads // plan.blocks), known // _PANEL_TILES))
    reduce = [it.var for it in main.reduce]
    block_var, weight = plan.block.var, main.value.b
    panel = loops.workspace(
        [*(it.extent for it in main.reduce), plan.width], str(main.out.dtype), "panel"
    )
    direct = replace(
        plan, main=replace(main, value=main.value.a * panel[(*reduce, plan.column.var)])
    )

    def fill(left: list[Iter], at: dict[Var, Expr], block: Expr) -> Stmt:
        if left:
            it, *others = left
            make = loops.unroll if str(it.var.name).startswith("unroll") else loops.serial
            return make(
                it.size if it.size is not None else it.extent,
                lambda k: fill(others, {**at, it.var: k}, block),
                name="k",
            )

        def lane(c: Expr) -> Stmt:
            value = loops.substitute(weight, {**at, block_var: block, plan.column.var: c})
            return loops.store(panel, value, [*(at[v] for v in reduce), c])

        return loops.vectors(plan.width, plan.lanes, lane)

    def task(p: Expr) -> Stmt:
        block, chunk = split_two(p, chunks)
        if known is None or chunks == 1:
            first, count = loops.const(0), places
        else:
            each = -(-known // chunks)
            first = chunk * each
            count = tirx.min(loops.const(each), loops.const(known) - first)
        return loops.seq(
            loops.allocate(panel),
            fill(list(main.reduce), {}, block),
            loops.serial(
                count,
                lambda t: _tile_at_place(direct, first + t, mr, row_count, rows, row_tiles, block),
                name="t",
            ),
        )

    return maps.parallel_or_serial(plan.blocks * chunks, maps.work_of(main), task)


def split_two(flat: Expr, inner: loops.Extent) -> tuple[Expr, Expr]:
    """``flat // inner, flat % inner``."""
    if loops.as_int(inner) == 1:
        return flat, loops.const(0)
    return tirx.floordiv(flat, inner), tirx.floormod(flat, inner)


def _columns_outside(plan: _Plan) -> bool:
    """Rule 4: whether the column blocks are the outermost loop."""
    if plan.tiling.columns_outside is not None:
        return plan.tiling.columns_outside
    sizes = []
    for load in loads(plan.main.value):
        size = loops.as_int(loops.product(list(load.source.shape)))
        if size is None:
            return True
        has_column = any(plan.column.var.same_as(v) for v in _variables(load.indices))
        sizes.append((has_column, size))
    weights = max((size for has, size in sizes if has), default=0)
    activations = max((size for has, size in sizes if not has), default=0)
    return plan.block is not None and weights >= activations


def _variables(indices: list[Expr]) -> list[Var]:
    return [v for index in indices for v in walk(index, Var)]


def _tile(
    plan: _Plan,
    outer: dict[Var, Expr],
    first_row: Expr,
    mr: int,
    block: Expr,
    limit: Expr | None = None,
) -> Stmt:
    """One register tile. With ``limit``, rows from it on are read as the last and not stored."""
    tail = plan.columns % plan.width
    if not tail or plan.blocks == 1:
        width = tail if tail else plan.width
        return _tile_of(plan, outer, first_row, mr, block, width, limit)
    if plan.block is not None:
        return _tile_of(plan, outer, first_row, mr, block, plan.width, limit, tail)
    return loops.branch(
        block < plan.blocks - 1,
        _tile_of(plan, outer, first_row, mr, block, plan.width, limit),
        _tile_of(plan, outer, first_row, mr, loops.const(plan.blocks - 1), tail, limit),
    )


def _tile_of(
    plan: _Plan,
    outer: dict[Var, Expr],
    first_row: Expr,
    mr: int,
    block: Expr,
    stored: int,
    limit: Expr | None,
    tail: int = 0,
) -> Stmt:
    main, lanes = plan.main, plan.lanes
    computed = plan.width if plan.block is not None else stored
    acc = loops.local([mr, computed], str(main.out.dtype), "acc")

    def over_tile(columns: int, body: Callable[[Expr, Expr], Stmt]) -> Stmt:
        return loops.unroll(
            mr, lambda r: loops.vectors(columns, lanes, lambda c: body(r, c)), name="r"
        )

    def main_at(r: Expr, c: Expr, reduce_at: dict[Var, Expr]) -> Expr:
        mapping = {**outer, **reduce_at}
        if plan.row is not None:
            at = first_row + r
            mapping[plan.row.var] = tirx.min(at, limit - 1) if limit is not None else at
        if plan.block is not None:
            mapping[plan.block.var] = block
            mapping[plan.column.var] = c
        else:
            mapping[plan.column.var] = block * plan.width + c
        assert main.combine is not None
        value = loops.substitute(main.value, mapping)
        return main.combine(acc[r, c], value)

    split = _run_axis(main) if plan.block is not None else None
    result = acc if split is None else loops.local([mr, computed], str(main.out.dtype), "total")

    def cleared(buffer: Var) -> Stmt:
        return over_tile(computed, lambda r, c: loops.store(buffer, main.init, [r, c]))

    def run(body: Stmt) -> Stmt:
        """One run of terms in ``acc``, added to the total."""
        join = over_tile(
            computed, lambda r, c: loops.store(result, result[r, c] + acc[r, c], [r, c])
        )
        return loops.seq(cleared(acc), body, join)

    def in_runs(it: Iter, others: list[Iter], at: dict[Var, Expr]) -> Stmt:
        size = it.size or 0
        codes = loops.as_int(loops.product([other.extent for other in others])) or 1
        length = max(1, RUN // codes)

        def span(first: Expr, count: int) -> Stmt:
            return run(
                loops.serial(
                    count, lambda k: steps(others, {**at, it.var: first + k}, False), name="k"
                )
            )

        full, rest = divmod(size, length)
        parts = []
        if full:
            parts.append(loops.serial(full, lambda b: span(b * length, length), name="run"))
        if rest:
            parts.append(span(loops.const(full * length), rest))
        return loops.seq(*parts)

    def steps(left: list[Iter], at: dict[Var, Expr], unrolled: bool) -> Stmt:
        if not left:
            return over_tile(computed, lambda r, c: loops.store(acc, main_at(r, c, at), [r, c]))
        it, *others = left
        if it is split:
            return in_runs(it, others, at)
        short = it.size is not None and (unrolled or str(it.var.name).startswith("unroll"))
        make = loops.unroll if short else loops.serial
        return make(
            it.size if it.size is not None else it.extent,
            lambda k: steps(others, {**at, it.var: k}, unrolled),
            name="k",
        )

    total = loops.as_int(loops.product([it.extent for it in main.reduce]))
    small = total is not None and total * mr <= _UNROLLED_STEPS * 2 and total <= _UNROLLED_STEPS
    body = steps(list(main.reduce), {}, small and plan.block is None)

    def store_at(r: Expr, c: Expr) -> Stmt:
        column = block * plan.width + c
        if plan.final is None:
            mapping = {**outer, plan.column.var: column}
            if plan.row is not None:
                mapping[plan.row.var] = first_row + r
            return loops.store(
                main.out, result[r, c], [loops.substitute(i, mapping) for i in main.indices]
            )
        rows = [it for it in main.spatial if it is not plan.column and it is not plan.block]
        at: dict[Var, Expr] = {}
        for mine, theirs in zip(rows, plan.final.spatial, strict=False):
            if plan.row is not None and mine is plan.row:
                at[theirs.var] = first_row + r
            else:
                at[theirs.var] = outer[mine.var]
        at[plan.final.spatial[-1].var] = column
        value = replace_loads(plan.final.value, main.out, lambda _indices: result[r, c])
        return loops.store(
            plan.final.out,
            loops.substitute(value, at),
            [loops.substitute(i, at) for i in plan.final.indices],
        )

    def out_rows(columns: int) -> Stmt:
        if limit is None:
            return over_tile(columns, store_at)
        return loops.unroll(
            mr,
            lambda r: loops.branch(
                first_row + r < limit,
                loops.vectors(columns, lanes, lambda c: store_at(r, c)),
            ),
            name="r",
        )

    write = out_rows(stored)
    if tail:
        write = loops.branch(block < plan.blocks - 1, write, out_rows(tail))
    if result is acc:
        return loops.seq(loops.allocate(acc), cleared(acc), body, write)
    return loops.seq(loops.allocate(acc), loops.allocate(result), cleared(result), body, write)


def _run_axis(main: Stage) -> Iter | None:
    """The loop to cut into runs (rule 6), or ``None`` for sums that are short, or no sums."""
    total = loops.as_int(loops.product([it.extent for it in main.reduce]))
    if total is None or total <= RUN * 3 // 2 or not str(main.out.dtype).startswith("float"):
        return None
    probe = tirx.Var("probe", str(main.out.dtype))
    if main.combine is None or not isinstance(main.combine(probe, probe), Add):
        return None
    inner = [it for it in main.reduce if not str(it.var.name).startswith("unroll")]
    if not inner or inner[-1].size is None or inner[-1].size < RUN // 4:
        return None
    return inner[-1]
