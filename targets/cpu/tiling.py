"""The register tile of one kernel: rules 1, 2, 4 and 6 of :mod:`burnish.targets.cpu.tiles`.

A step of a tile of ``MR`` rows by ``V`` vectors takes, in cycles, the largest of

    MR * V / F            F multiply-adds a cycle
    (MR + V) / 2          two loads a cycle: V vectors of weights, MR broadcasts
    4                     the latency of a multiply-add: each accumulator is used once a step
    V * bytes / 24        weights come from the second-level cache at 24 bytes a cycle

and ``MR * V`` accumulators, ``V`` weights and one broadcast must fit the registers. ``V`` and
``MR`` are those with the fewest cycles for all rows and columns, narrower tiles included.

Depthwise convolution has no operand without columns: a step loads ``MR * V`` inputs, but for what
rows that lie side by side share of a window. ``V`` is 1 there, for the most rows: on AVX2 and on
AVX-512 this ran two times as fast as ``V`` = 4 or more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import tvm
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir.prim import Add, Mul

from burnish.targets.cpu import dots, loops
from burnish.targets.cpu.dots import Dot
from burnish.targets.cpu.loops import Extent
from burnish.targets.cpu.padding import Reach, reaches
from burnish.targets.cpu.stages import Iter, Stage, loads, loads_of, same_indices, simplified, walk
from burnish.targets.target import CpuTarget

RUN = 512
"""Terms summed in registers before they join the total (rule 6)."""


@dataclass(frozen=True)
class Tiling:
    """Choices of rules 2 and 4 to take instead of the rules' own; for tuning."""

    rows: int | None = None
    columns_outside: bool | None = None


@dataclass(frozen=True)
class Plan:
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
    reaches: tuple[Reach, ...] = ()
    merged: tuple[Iter, ...] = ()
    """Axes that ``row`` counts through together."""
    dot: Dot | None = None
    """The instruction that a step is done by; ``main`` then sums words, its group left out."""

    def at_row(self, index: Expr) -> dict[Var, Expr]:
        """The values of the row axes in row ``index``."""
        if self.row is None:
            return {}
        if not self.merged:
            return {self.row.var: index}
        parts = loops.split_index(index, [it.extent for it in self.merged])
        return dict(zip([it.var for it in self.merged], parts, strict=True))

    @property
    def vectors(self) -> int:
        return -(-self.width // self.lanes)

    @property
    def blocks(self) -> int:
        return -(-self.columns // self.width)

    def border_tiles(self, mr: int, rows: int) -> list[int]:
        """Tiles of ``mr`` rows some of whose terms lie outside the data."""
        of_rows = [reach for reach in self.reaches if reach.rows is not None]
        sizes = {it.var: it.size or 0 for it in self.main.reduce}

        def whole(row: int) -> bool:
            return all(
                reach.covers(row, k)
                for reach in of_rows
                for k in ({0, sizes[reach.k] - 1} if reach.k is not None else {0})
            )

        return sorted({row // mr for row in range(rows) if not whole(row)}) if of_rows else []


def packed_width(stage: Stage) -> int | None:
    """``NB`` of a reduction over packed weights, which the lowering pass notes on the block."""
    value = stage.attrs.get("burnish.packed")
    return None if value is None else int(value)


def plan_tiles(main: Stage, final: Stage | None, target: CpuTarget, tiling: Tiling) -> Plan | None:
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
        width = 0
    if columns is None:
        return None
    row = None
    outer = list(rest)
    for position in reversed(range(len(rest))):
        if rest[position].size != 1:
            row = outer.pop(position)
            break
    if packed is None:
        slides = row is not None and _slides(main, row)
        width = min(target.lanes, columns) if slides else _width(columns, target)
    if final is not None and not stores_alike(main, final, packed):
        return None
    lanes = min(target.lanes, width)
    guards = reaches(main, outer, row)
    if guards is None:
        return None
    plan = Plan(
        main, final, tuple(outer), row, block, column, width, lanes, columns, tiling, guards
    )
    dot = dots.match(main, column.var, target) if packed is not None else None
    if dot is not None:
        plan = replace(plan, main=replace(main, reduce=main.reduce[:-1]), dot=dot)
    return _merged(plan, target)


def _merged(plan: Plan, target: CpuTarget) -> Plan:
    """Row axes as one where that fills the tiles better: ``[14, 14]`` rows as 196.

    Open axes, such as a batch before them, stay outside.
    """
    rows = plan.row.size if plan.row is not None else None
    if plan.block is None or plan.reaches or plan.row is None or rows is None:
        return plan
    known = [it for it in plan.outer if it.size is not None]
    outer = math.prod(it.size or 0 for it in known)
    if outer <= 1 or rows == 0:
        return plan
    apart = outer * fewest_cycles(rows, plan.vectors, target)
    if fewest_cycles(outer * rows, plan.vectors, target) > 0.97 * apart:
        return plan
    axes = [it for it in plan.main.spatial if it is plan.row or any(it is o for o in known)]
    whole = Iter(tirx.Var("row", "int64"), loops.const(outer * rows))
    left = tuple(it for it in plan.outer if it.size is None)
    return replace(plan, outer=left, row=whole, merged=tuple(axes))


_LATENCY = 4
_L2_BYTES = 24
_STEP = 0.25
"""Cycles of a step that are none of the tile's: counters, jumps, the store at the end."""
_MOST_ROWS = 16
_LARGE = 1024
"""Rows to reckon with where their number is open."""


def tile_cycles(rows: int, vectors: int, target: CpuTarget) -> float:
    """Cycles of one step of a tile; see the module."""
    return _STEP + max(
        rows * vectors / target.fmas,
        (rows + vectors) / 2,
        _LATENCY,
        vectors * target.lanes * 4 / _L2_BYTES,
    )


def most_rows(vectors: int, target: CpuTarget) -> int:
    """Rows whose accumulators fit the registers beside the weights and one broadcast."""
    return min(_MOST_ROWS, max(1, (target.registers - vectors - 1) // vectors))


def choose_rows(rows: int | None, vectors: int, target: CpuTarget) -> int:
    """``MR`` by rule 2."""
    known = _LARGE if rows is None else rows

    def cost(mr: int) -> float:
        tail = tile_cycles(known % mr, vectors, target) if known % mr and rows is not None else 0
        whole = known / mr if rows is None else known // mr
        return whole * tile_cycles(mr, vectors, target) + tail

    return min(range(1, most_rows(vectors, target) + 1), key=lambda mr: (cost(mr), -mr))


def fewest_cycles(rows: int, vectors: int, target: CpuTarget) -> float:
    """Cycles of one step of all rows, in the best tiles."""
    mr = choose_rows(rows, vectors, target)
    tail = tile_cycles(rows % mr, vectors, target) if rows % mr else 0
    return rows // mr * tile_cycles(mr, vectors, target) + tail


def choose_width(rows: int | None, channels: int, target: CpuTarget) -> int:
    """``NB``, the columns of a block, for a kernel of so many rows (``None``: many)."""
    lanes = target.lanes
    known = rows or _LARGE

    def cost(vectors: int) -> float:
        blocks = -(-channels // (vectors * lanes))
        return blocks * fewest_cycles(known, vectors, target)

    return min((4, 3, 2, 1), key=lambda vectors: (cost(vectors), -vectors)) * lanes


def places_in_turn(plan: Plan, target: CpuTarget, places: Extent, mr: int) -> Extent | None:
    """Rule 4: row tiles of ``mr`` that one column block passes before the next; ``None`` for all.

    Where their number is open, it is reckoned from the bytes that one tile reads.
    """
    count = loops.as_int(places)
    if plan.tiling.columns_outside is not None:
        return None if plan.tiling.columns_outside or count is None else 1
    if count == 0:
        return None
    weights = activations = 0
    for load in loads(plan.main.value):
        size = _known(list(load.source.shape))
        size *= tvm.DataType(str(load.ty.dtype)).itemsize
        if any(plan.column.var.same_as(v) for v in _variables(load.indices)):
            weights = max(weights, size)
        else:
            activations = max(activations, size)
    if plan.block is None or (activations > weights and weights <= target.l2 // 4):
        return 1
    if count is not None:
        if activations <= target.l2 // 2:
            return None
        return max(1, min(count, count * (target.l2 // 2) // activations))
    rows = [plan.row.extent] if plan.row is not None else []
    tiles = [loops.divide(n + (mr - 1), mr)[0] if loops.as_int(n) is not None else n for n in rows]
    known = _known([it.extent for it in plan.outer] + tiles)
    in_tile = activations * (mr if any(loops.as_int(n) is None for n in rows) else 1)
    most = max(1, known * (target.l2 // 2) // max(1, in_tile))
    return tirx.max(tirx.min(places, loops.const(most)), loops.const(1))


def _known(extents: list[Extent]) -> int:
    """The product of those extents that are no open sizes."""
    return math.prod(size for extent in extents if (size := loops.as_int(extent)) is not None)


def run_axis(main: Stage) -> tuple[Iter, int] | None:
    """The loop to cut into runs (rule 6) and its steps in a run; ``None`` for short sums.

    It is the innermost loop around which, all loops inside it included, more than half as much
    again as a run is summed; sums that are no floating point need none.
    """
    if not str(main.out.dtype).startswith("float") or main.combine is None:
        return None
    probe = tirx.Var("probe", str(main.out.dtype))
    if not isinstance(main.combine(probe, probe), Add):
        return None
    inside = 1
    for it in reversed(main.reduce):
        if it.size is None:
            return None
        if inside * it.size > RUN * 3 // 2:
            return it, max(1, RUN // inside)
        inside *= it.size
    return None


def _width(columns: int, target: CpuTarget) -> int:
    lanes = target.lanes
    for vectors in (4, 2, 1):
        if columns >= vectors * lanes and (columns % (vectors * lanes) == 0 or vectors == 4):
            return vectors * lanes
    return min(lanes, columns) if columns < lanes else lanes


def _slides(main: Stage, row: Iter) -> bool:
    """Whether a window of weights slides along the rows, so that neighbours share what they load.

    Tall and narrow tiles share most: one vector of columns. Pooling, which has no weights to
    keep, is bound by memory and runs no faster so.
    """
    windows = [it.var for it in main.reduce]
    return isinstance(main.value, Mul) and any(
        any(v.same_as(row.var) for v in names) and any(v.same_as(w) for v in names for w in windows)
        for load in loads(main.value)
        for names in (walk(index, Var) for index in load.indices)
    )


def stores_alike(main: Stage, final: Stage, packed: int | None) -> bool:
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


def _variables(indices: list[Expr]) -> list[Var]:
    return [v for index in indices for v in walk(index, Var)]
