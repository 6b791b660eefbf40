"""Where the register tiles of a kernel lie: every row, tails and borders as tiles of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.tile import At, Tile
from burnish.targets.cpu.tiling import Plan, choose_rows
from burnish.targets.target import CpuTarget

Body = Callable[[Tile], Stmt]


@dataclass(frozen=True)
class Places:
    """``outer`` x ``tiles`` places, each a tile of up to ``mr`` rows; sizes may be symbolic."""

    plan: Plan
    mr: int
    rows: loops.Extent

    @classmethod
    def of(cls, plan: Plan, target: CpuTarget) -> Places:
        extent = plan.row.extent if plan.row is not None else loops.const(1)
        rows = loops.as_int(extent)
        mr = plan.tiling.rows or choose_rows(rows, plan.vectors, target)
        return cls(
            plan, mr if rows is None else max(1, min(mr, rows)), extent if rows is None else rows
        )

    @property
    def tiles(self) -> loops.Extent:
        """Tiles of the rows at one outer index."""
        if isinstance(self.rows, int):
            return -(-self.rows // self.mr)
        return tirx.floordiv(self.rows + (self.mr - 1), self.mr)

    @property
    def count(self) -> loops.Extent:
        return loops.product([*(it.extent for it in self.plan.outer), self.tiles])

    @property
    def borders(self) -> list[int]:
        return self.plan.border_tiles(self.mr, self.rows) if isinstance(self.rows, int) else []

    def at(self, plan: Plan, place: Expr, block: Expr, body: Body) -> Stmt:
        """``body`` of the tile at ``place`` in column block ``block``.

        ``plan`` may differ from the places' own in what it sums. The last tile may be narrower,
        and those at the borders leave terms out (rule 8).
        """
        around, tile = loops.split_two(place, self.tiles)
        parts = [tile, *loops.split_index(around, [it.extent for it in plan.outer])]
        if loops.as_int(self.count) is None:
            names = {f"at{i}": part for i, part in enumerate(parts)}
            return loops.named(lambda *named: self._at(plan, [*named], block, body), **names)
        return self._at(plan, parts, block, body)

    def _at(self, plan: Plan, parts: list[Expr], block: Expr, body: Body) -> Stmt:
        tile, *at = parts
        outer = dict(zip([it.var for it in plan.outer], at, strict=True))
        if not isinstance(self.rows, int):
            return self._open_rows(plan, outer, tile, block, body)
        rest, whole = self.rows % self.mr, self.rows // self.mr
        borders = self.borders
        special = sorted({*borders, *([whole] if rest else [])})

        def special_tile(number: int) -> Stmt:
            first = number * self.mr
            rows = rest if number == whole else self.mr
            border = first if number in borders else None
            found = Tile(plan, outer, loops.const(first), rows, block, plan.width, border=border)
            return _by_column(found, body)

        if len(special) == whole + bool(rest):
            chosen, special = special_tile(special[-1]), special[:-1]
        else:
            chosen = _by_column(Tile(plan, outer, tile * self.mr, self.mr, block, plan.width), body)
        for number in special:
            chosen = loops.branch(tile.equal(number), special_tile(number), chosen)
        return chosen

    def _open_rows(self, plan: Plan, outer: At, tile: Expr, block: Expr, body: Body) -> Stmt:
        """A whole tile, or the lowest of a few that covers the rows that are left."""
        assert not isinstance(self.rows, int)
        first, rows = tile * self.mr, self.rows
        chosen = _by_column(Tile(plan, outer, first, self.mr, block, plan.width), body)
        left = rows - first
        heights = self.tail_heights
        for height, lower in zip(heights, [*heights[1:], 0], strict=True):
            limit = None if height == lower + 1 else rows
            tail = Tile(plan, outer, first, height, block, plan.width, limit=limit)
            chosen = loops.branch(left <= height, _by_column(tail, body), chosen)
        return chosen

    @property
    def tail_heights(self) -> list[int]:
        """Heights of last tiles where the rows are open, highest first.

        Only tiles of packed weights are worth several: each is code of its own.
        """
        lower = [h for h in (8, 4, 2, 1) if h < self.mr - 1] if self.plan.block is not None else []
        return [self.mr - 1, *lower] if self.mr > 1 else []


def _by_column(tile: Tile, body: Body) -> Stmt:
    """``body`` of a tile whose last column block may be narrower (rule 3)."""
    plan = tile.plan
    tail = plan.columns % plan.width
    if not tail or plan.blocks == 1:
        return body(replace(tile, stored=tail or plan.width))
    if plan.block is not None:
        return body(replace(tile, tail=tail))
    last = loops.const(plan.blocks - 1)
    return loops.branch(
        tile.block < plan.blocks - 1, body(tile), body(replace(tile, block=last, stored=tail))
    )
