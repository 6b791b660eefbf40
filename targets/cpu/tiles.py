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
6. Long sums are taken in runs of about ``RUN`` terms, each added to a total kept in the
   first-level cache, so that rounding errors grow with the square root of the run and not of the
   whole. The total is no private buffer: with the accumulators it would fill the registers twice.
7. Reductions short enough to unroll (depthwise, pooling) are, so that overlapping windows share
   loads.
8. Terms outside the data (padding) are never computed: along axes outside the tile the loops over
   the window are shortened, along its rows the few tiles at the borders are tiles of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.ir.prim import Mul
from tvm.tirx import Stmt

from burnish.targets.cpu import loops, maps
from burnish.targets.cpu.padding import Reach
from burnish.targets.cpu.stages import (
    Iter,
    Program,
    Stage,
    loads_of,
    replace_loads,
    simplified,
    walk,
)
from burnish.targets.cpu.tiling import (
    Plan,
    Tiling,
    choose_rows,
    columns_outside_first,
    plan_tiles,
    run_axis,
)
from burnish.targets.target import CpuTarget

_UNROLLED_STEPS = 64
_MOST_BORDER_TILES = 4
_PANEL_TILES = 4
"""Row tiles from which on converting a panel first costs less than converting in each."""


def emit(
    program: Program,
    main: Stage,
    final: Stage | None,
    target: CpuTarget,
    tiling: Tiling,
) -> Stmt | None:
    """Statement computing ``main`` and, if it can be fused, ``final``; ``None`` if it cannot."""
    plan = plan_tiles(main, final, target, tiling)
    return None if plan is None else _emit(plan, target)


def accepts(main: Stage, final: Stage | None, target: CpuTarget, tiling: Tiling) -> bool:
    """Whether rule 8 can be kept for a reduction with guards."""
    if final is not None and not loads_of(final.value, main.out):
        final = None
    plan = plan_tiles(main, final, target, tiling)
    if plan is None:
        return False
    rows = plan.row.size if plan.row is not None else 1
    if rows is None:
        return all(reach.rows is None for reach in plan.reaches)
    mr = min(_tile_rows(plan, rows, target), rows)
    return rows == 0 or len(plan.border_tiles(mr, rows)) <= _MOST_BORDER_TILES


def _tile_rows(plan: Plan, rows: int | None, target: CpuTarget) -> int:
    vectors = -(-plan.width // plan.lanes)
    return plan.tiling.rows or choose_rows(rows, vectors, target.registers)


def _emit(plan: Plan, target: CpuTarget) -> Stmt:
    rows: loops.Extent = plan.row.extent if plan.row is not None else 1
    row_count = loops.as_int(rows)
    rows = row_count if row_count is not None else rows
    mr = _tile_rows(plan, row_count, target)
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
        if columns_outside_first(plan):
            block, place = loops.split_two(p, loops.product([outer, row_tiles]))
        else:
            place, block = loops.split_two(p, plan.blocks)
        return _tile_at_place(plan, place, mr, row_count, rows, row_tiles, block)

    return maps.parallel_or_serial(tasks, maps.work_of(plan.main), tile_at)


def _tile_at_place(
    plan: Plan,
    place: Expr,
    mr: int,
    row_count: int | None,
    rows: loops.Extent,
    row_tiles: loops.Extent,
    block: Expr,
) -> Stmt:
    """The tile number ``place`` of outer indices by row tiles.

    The last one may be narrower, and those at the borders leave terms out (rule 8).
    """
    around, tile = loops.split_two(place, row_tiles)
    at = loops.split_index(around, [it.extent for it in plan.outer])
    mapping = dict(zip([it.var for it in plan.outer], at, strict=True))
    if row_count is None:
        return _tile(plan, mapping, tile * mr, mr, block, limit=rows)
    rest, whole = row_count % mr, row_count // mr
    borders = plan.border_tiles(mr, row_count)
    special = sorted({*borders, *([whole] if rest else [])})

    def special_tile(number: int) -> Stmt:
        return _tile(
            plan,
            mapping,
            loops.const(number * mr),
            rest if number == whole else mr,
            block,
            border=number * mr if number in borders else None,
        )

    if len(special) == whole + bool(rest):
        chosen, special = special_tile(special[-1]), special[:-1]
    else:
        chosen = _tile(plan, mapping, tile * mr, mr, block)
    for number in special:
        chosen = loops.branch(tile.equal(number), special_tile(number), chosen)
    return chosen


def _needs_panel(plan: Plan, places: loops.Extent) -> bool:
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
    plan: Plan,
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
        block, chunk = loops.split_two(p, chunks)
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


def _tile(
    plan: Plan,
    outer: dict[Var, Expr],
    first_row: Expr,
    mr: int,
    block: Expr,
    limit: Expr | None = None,
    border: int | None = None,
) -> Stmt:
    """One register tile. With ``limit``, rows from it on are read as the last and not stored.

    ``border`` is the first row of a tile some of whose terms do not exist.
    """
    tail = plan.columns % plan.width
    if not tail or plan.blocks == 1:
        width = tail if tail else plan.width
        return _tile_of(plan, outer, first_row, mr, block, width, limit, border)
    if plan.block is not None:
        return _tile_of(plan, outer, first_row, mr, block, plan.width, limit, border, tail)
    last = loops.const(plan.blocks - 1)
    return loops.branch(
        block < plan.blocks - 1,
        _tile_of(plan, outer, first_row, mr, block, plan.width, limit, border),
        _tile_of(plan, outer, first_row, mr, last, tail, limit, border),
    )


def _tile_of(
    plan: Plan,
    outer: dict[Var, Expr],
    first_row: Expr,
    mr: int,
    block: Expr,
    stored: int,
    limit: Expr | None,
    border: int | None,
    tail: int = 0,
) -> Stmt:
    main, lanes = plan.main, plan.lanes
    everything = list(range(mr))
    computed = plan.width if plan.block is not None else stored
    acc = loops.local([mr, computed], str(main.out.dtype), "acc")

    def over_tile(
        columns: int, body: Callable[[Expr, Expr], Stmt], live: list[int] = everything
    ) -> Stmt:
        def over_row(r: Expr) -> Stmt:
            return loops.vectors(columns, lanes, lambda c: body(r, c))

        if len(live) == mr:
            return loops.unroll(mr, over_row, name="r")
        return loops.seq(*[over_row(loops.const(r)) for r in live])

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

    split, length = (run_axis(main) if plan.block is not None else None) or (None, 0)
    result = acc if split is None else loops.workspace([mr, computed], str(main.out.dtype), "total")

    def cleared(buffer: Var) -> Stmt:
        return over_tile(computed, lambda r, c: loops.store(buffer, main.init, [r, c]))

    def run(body: Stmt) -> Stmt:
        """One run of terms in ``acc``, added to the total."""
        join = over_tile(
            computed, lambda r, c: loops.store(result, result[r, c] + acc[r, c], [r, c])
        )
        return loops.seq(cleared(acc), body, join)

    def in_runs(it: Iter, others: list[Iter], at: dict[Var, Expr], live: list[int]) -> Stmt:
        def span(first: Expr, count: int) -> Stmt:
            return run(
                loops.serial(
                    count, lambda k: steps(others, {**at, it.var: first + k}, False, live), name="k"
                )
            )

        full, rest = divmod(it.size or 0, length)
        parts = []
        if full:
            parts.append(loops.serial(full, lambda b: span(b * length, length), name="run"))
        if rest:
            parts.append(span(loops.const(full * length), rest))
        return loops.seq(*parts)

    checked = {
        reach.k: reach
        for reach in plan.reaches
        if reach.k is not None and (border is not None or reach.rows is None)
    }
    around = dict(outer)
    if plan.row is not None:
        around[plan.row.var] = first_row

    def steps(left: list[Iter], at: dict[Var, Expr], unrolled: bool, live: list[int]) -> Stmt:
        if not left:
            return over_tile(
                computed, lambda r, c: loops.store(acc, main_at(r, c, at), [r, c]), live
            )
        it, *others = left
        short = it.size is not None and (unrolled or str(it.var.name).startswith("unroll"))
        reach = checked.get(it.var)
        if it is split and reach is None:
            return in_runs(it, others, at, live)
        if reach is not None:
            return guarded_steps(reach, it, others, at, unrolled, live)
        make = loops.unroll if short else loops.serial
        return make(
            it.size if it.size is not None else it.extent,
            lambda k: steps(others, {**at, it.var: k}, unrolled, live),
            name="k",
        )

    def guarded_steps(
        reach: Reach,
        it: Iter,
        others: list[Iter],
        at: dict[Var, Expr],
        unrolled: bool,
        live: list[int],
    ) -> Stmt:
        """Rule 8 along one axis of the window; where runs are along it, each step is one."""
        size = it.size or 0

        def step(k: Expr, rows: list[int]) -> Stmt:
            body = steps(others, {**at, it.var: k}, unrolled, rows)
            return run(body) if it is split else body

        if reach.rows is None and not unrolled:
            first, last = reach.span(around, size)
            return loops.serial(
                simplified(last - first),
                lambda k: step(first + k, live),
                name="k",
            )
        parts = []
        for k in range(size):
            if reach.rows is None:
                now = {**around, **at, it.var: loops.const(k)}
                parts.append(loops.branch(reach.holds(now), step(loops.const(k), live)))
                continue
            assert border is not None
            inside = [r for r in live if reach.covers(border + r, k)]
            if inside:
                parts.append(step(loops.const(k), inside))
        return loops.seq(*parts) if parts else tirx.Evaluate(loops.const(0))

    total = loops.as_int(loops.product([it.extent for it in main.reduce]))
    small = total is not None and total * mr <= _UNROLLED_STEPS * 2 and total <= _UNROLLED_STEPS
    start = everything
    outside: list[Expr] = []
    for reach in plan.reaches:
        if reach.k is not None:
            continue
        if reach.rows is None:
            outside.append(reach.holds(around))
        elif border is not None:
            start = [r for r in start if reach.covers(border + r, 0)]
    unroll = small and plan.block is None
    body = steps(list(main.reduce), {}, unroll, start)
    if unroll and border is None and checked:
        inside = [
            reach.holds({**around, it.var: loops.const(k)})
            for it in main.reduce
            for reach in ([checked[it.var]] if it.var in checked else [])
            for k in (0, (it.size or 1) - 1)
        ]
        checked = {}
        whole = steps(list(main.reduce), {}, unroll, start)
        body = loops.branch(tirx.all(*inside), whole, body)
    if outside:
        body = loops.branch(tirx.all(*outside), body)

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
