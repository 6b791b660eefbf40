"""The register tile of one kernel: rules 1, 2, 4 and 6 of :mod:`burnish.targets.cpu.tiles`."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir.prim import Add

from burnish.targets.cpu import loops
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
    guards = reaches(main, outer, row)
    if guards is None:
        return None
    return Plan(
        main, final, tuple(outer), row, block, column, width, lanes, columns, tiling, guards
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


def columns_outside_first(plan: Plan) -> bool:
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


def _variables(indices: list[Expr]) -> list[Var]:
    return [v for index in indices for v in walk(index, Var)]
