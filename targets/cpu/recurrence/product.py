"""Rules 1 and 3: a product of a step as tasks, each a panel of columns and a block of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops

PARALLEL_WORK = 48 * 1024
"""Multiplications of a step from which on threads share it."""
_MOST_ROWS = 6
Tile = Callable[[Expr, Expr, int], Stmt]
"""By the panel, the first row, and how many rows."""


@dataclass(frozen=True)
class Loops:
    """How loops are made: in vectors of ``lanes`` and by threads, or plain ones if not ``fast``."""

    lanes: int
    registers: int
    fast: bool

    def columns(self, count: int, body: Callable[[Any], Stmt]) -> Stmt:
        """Neighbouring columns of a panel."""
        if not self.fast:
            return loops.serial(count, body, "v")
        return loops.vectors(count, min(self.lanes, count), body)

    def unroll(self, count: int, body: Callable[[Any], Stmt], name: str) -> Stmt:
        return (loops.unroll if self.fast else loops.serial)(count, body, name)


@dataclass(frozen=True)
class Product:
    """Sums over ``weights [P, K, G, NB]`` of some ``gates``, of ``batch`` rows."""

    weights: Var
    gates: range
    batch: loops.Extent
    how: Loops

    @property
    def panels(self) -> int:
        return int(self.weights.shape[0])

    @property
    def depth(self) -> int:
        return int(self.weights.shape[1])

    @property
    def width(self) -> int:
        return int(self.weights.shape[3])

    @property
    def padded(self) -> int:
        """Columns of all panels."""
        return self.panels * self.width

    @property
    def panel(self) -> int:
        """Columns of a panel, of all gates there are."""
        return int(self.weights.shape[2]) * self.width

    @property
    def rows(self) -> int:
        """Of a block, whose sums fill the registers."""
        vectors = max(1, self.panel // self.how.lanes)
        most = (self.how.registers - 2 - min(vectors, 8)) // vectors
        most = max(1, min(_MOST_ROWS, most))
        known = loops.as_int(self.batch)
        return most if known is None else max(1, min(most, known))

    def columns(self, body: Callable[[Any], Stmt]) -> Stmt:
        """Of a panel."""
        return self.how.columns(self.width, body)

    def over(self, rows: int, gates: range, body: Callable[[Any, Any, Any], Stmt]) -> Stmt:
        """``body`` of rows, gates from 0 on, and columns of a panel."""
        return self.how.unroll(
            rows,
            lambda i: self.how.unroll(
                len(gates), lambda g: self.columns(lambda v: body(i, g, v)), "g"
            ),
            "i",
        )

    def tasks(self, tile: Tile) -> Stmt:
        """All of the product in tiles."""
        if self.rows == 1:
            return self._blocks(self.batch, 0, tile)
        whole, rest = loops.divide(self.batch, self.rows)
        return loops.named(lambda w, r: self._blocks(w, r, tile), whole=whole, rest=rest)

    def _blocks(self, whole: loops.Extent, rest: loops.Extent, tile: Tile) -> Stmt:
        """Tiles of ``whole`` blocks of rows and of ``rest`` single rows."""

        def share(blocks: loops.Extent, rows: int, first: loops.Extent) -> Stmt:
            def task(flat: Expr) -> Stmt:
                if loops.as_int(blocks) is None:
                    # No division by an open size: TVM may find that it is 0 where nothing runs.
                    block, panel = loops.split_two(flat, self.panels)
                else:
                    panel, block = loops.split_two(flat, blocks)
                return loops.named(
                    lambda panel, b: tile(panel, b, rows), panel=panel, b=block * rows + first
                )

            return self._shared(loops.product([self.panels, blocks]), rows, task)

        parts: list[Stmt] = []
        if loops.as_int(whole) != 0:
            parts.append(share(whole, self.rows, 0))
        known = loops.as_int(rest)
        if known is None:
            parts.append(share(rest, 1, whole * self.rows))
        elif known:
            parts.append(share(1, known, loops.times(whole, self.rows)))
        return loops.seq(*parts)

    def _shared(self, count: loops.Extent, rows: int, body: loops.Body) -> Stmt:
        """Rule 3. ``count`` times ``rows`` rows of one panel; open counts are 1 or more."""
        if not self.how.fast:
            return loops.serial(count, body, "p")
        each = self.depth * self.panel * rows
        known = loops.as_int(count)
        if known is not None:
            make = loops.serial if known * each < PARALLEL_WORK else loops.parallel
            return make(count, body)
        least, most = self.panels * each, self.panels * each * (self.rows - 1)
        if least >= PARALLEL_WORK:
            return loops.parallel(count, body)
        if rows == 1 and most < PARALLEL_WORK and self.rows > 1:
            return loops.serial(count, body)
        return loops.branch(
            count * each < PARALLEL_WORK, loops.serial(count, body), loops.parallel(count, body)
        )


__all__ = ["Loops", "Product"]
