"""Rule for reductions whose innermost spatial axis is contiguous: packed GEMM, convolution,
depthwise convolution, pooling, column sums.

A register tile of ``MR`` rows by ``NB`` columns is accumulated over the whole reduction and
stored once, with everything fused after it computed on the way out.

1. Columns: the last spatial axis; for packed weights the pair ``(N // NB, NB)`` of the last two.
   Rows: the spatial axis before the columns.
2. ``MR`` and ``V = NB / lanes`` are those with the fewest cycles by the model of
   :mod:`burnish.targets.cpu.tiling`. Rows of several axes become one axis where that fills the
   tiles better and no term lies outside the data.
3. Tails: the last row tile is a tile of its own (static shapes) or reads the last row again and
   stores nothing (symbolic shapes); the last column tile stores only what exists.
4. Order: as many rows as fit half of the second-level cache are passed by all column blocks, one
   block after the other; each row by itself where the weights are so few that they stay there.
5. Weights that must be computed first (integer codes) are converted a run at a time into a panel
   that stays in the core's cache, once for all row tiles of a task, so that a quantized GEMM runs
   at the speed of a plain one; no copy of the whole weight is made.
6. Long sums are taken in runs of about ``RUN`` terms, each added to a total in memory, so that
   rounding errors grow with the square root of the run and not of the whole. All row tiles of a
   task read a run's weights before the next run: they come from the second-level cache.
7. Reductions short enough to unroll (depthwise, pooling) are, so that overlapping windows share
   loads.
8. Terms outside the data (padding) are never computed: along axes outside the tile the loops over
   the window are shortened, along its rows the few tiles at the borders are tiles of their own.
9. While tiles read one panel of weights, they ask for the next: in a network, weights come from
   main memory at every call. So does what is added in the store: a tile asks for it first.
10. Contractions that a dot instruction of the target fits run on it, a group along ``K`` a step
    (:mod:`burnish.targets.cpu.dots`); their factors are rounded so much more coarsely than their
    sums that rule 6 is of no use to them.
"""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets.cpu import loops, maps, panels
from burnish.targets.cpu.places import Places
from burnish.targets.cpu.stages import Program, Stage, loads_of
from burnish.targets.cpu.tile import Extra, Tile
from burnish.targets.cpu.tiling import Tiling, places_in_turn, plan_tiles
from burnish.targets.target import CpuTarget

_MOST_BORDER_TILES = 4


def emit(
    program: Program,
    main: Stage,
    final: Stage | None,
    target: CpuTarget,
    tiling: Tiling,
) -> Stmt | None:
    """Statement computing ``main`` and, if it can be fused, ``final``; ``None`` if it cannot."""
    plan = plan_tiles(main, final, target, tiling)
    if plan is None:
        return None
    places = Places.of(plan, target)
    body = panels.emit(places, target) if panels.applies(places) else _emit(places, target)
    return body if plan.dot is None else plan.dot.imported(body)


def accepts(main: Stage, final: Stage | None, target: CpuTarget, tiling: Tiling) -> bool:
    """Whether rule 8 can be kept for a reduction with guards."""
    if final is not None and not loads_of(final.value, main.out):
        final = None
    plan = plan_tiles(main, final, target, tiling)
    if plan is None:
        return False
    places = Places.of(plan, target)
    if not isinstance(places.rows, int):
        return all(reach.rows is None for reach in plan.reaches)
    return places.rows == 0 or len(places.borders) <= _MOST_BORDER_TILES


def _emit(places: Places, target: CpuTarget) -> Stmt:
    each = places_in_turn(places.plan, target, places.count, places.mr)
    if each is None:
        return _tasks(places, target, places.count, 1)
    if loops.as_int(each) == 1:
        return _tasks(places, target, each, places.count)

    def chunked(turn: loops.Extent) -> Stmt:
        if (known := loops.as_int(turn)) is not None and (of := loops.as_int(places.count)):
            return _tasks(places, target, turn, -(-of // known))
        count, _ = loops.split_two(places.count + (turn - 1), turn)
        return loops.named(lambda chunks: _tasks(places, target, turn, chunks), chunks=count)

    return loops.named(chunked, turn=each)


def _tasks(places: Places, target: CpuTarget, turn: loops.Extent, chunks: loops.Extent) -> Stmt:
    """Places in ``chunks`` of ``turn`` each, the last perhaps fewer."""
    plan = places.plan
    total, each, parts = (loops.as_int(n) for n in (places.count, turn, chunks))
    whole = each == 1 or parts == 1
    if total is not None and each is not None:
        whole = total % max(1, each) == 0

    def task(p: Expr) -> Stmt:
        inside = loops.product([plan.blocks, turn])
        chunk, rest = (loops.const(0), p) if parts == 1 else loops.split_two(p, inside)
        block, t = loops.split_two(rest, turn) if plan.blocks > 1 else (loops.const(0), rest)
        place = t if parts == 1 else chunk * turn + t
        if total is None:
            return loops.named(placed, place=place, block=block, t=t)
        return placed(place, block, t)

    def placed(place: Expr, block: Expr, t: Expr) -> Stmt:
        asks = plan.block is not None and each != 1
        run = panels.whole_sum(plan)
        ahead = panels.prefetching(plan, run, block, turn) if asks else panels.unasked

        def computed(tile: Tile, extra: Extra | None) -> Stmt:
            acc = tile.accumulators()
            return loops.seq(
                loops.allocate(acc),
                *tile.asked(),
                tile.cleared(acc),
                tile.whole(acc, extra),
                tile.write(lambda r, c: acc[r, c]),
            )

        body = places.at(
            plan, place, block, lambda tile: ahead(t, lambda extra: computed(tile, extra))
        )
        return body if whole else loops.branch(place < places.count, body)

    tasks = loops.product([chunks, plan.blocks, turn])
    return maps.parallel_or_serial(tasks, maps.work_of(plan.main), task)
