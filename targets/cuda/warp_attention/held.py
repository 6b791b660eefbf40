"""What a block of threads holds: operands in shared memory, and scores and sums in registers.

A warp has ``down`` pieces of 16 rows, and ``across`` pieces of 16 keys of a tile. A piece of sums
is eight registers of a thread, of two of its rows (:mod:`burnish.targets.cuda.fragments`, part 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx import Stmt

from burnish.targets.attention_form import Attention
from burnish.targets.cuda.fragments import SIZE, Matrix
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.cuda.warp_attention.tile import PAD, SUMS_PAD, Tile, keeps_queries, padded
from burnish.targets.cuda.warps import Block, Memory, PerWarp, Registers, allocated
from burnish.targets.gpu.launch import unroll

EachElement = Callable[[Any, Any, Any], Stmt]
"""A statement by the piece of rows, the piece of keys or of columns, and the register."""


class Held:
    """The buffers of one kernel, and where its rows, keys, scores and sums are in them."""

    def __init__(
        self, attention: Attention, tile: Tile, target: CudaTarget, *, described: bool
    ) -> None:
        self.attention, self.tile, self.sizes = attention, tile, attention.sizes
        sizes, dtype = attention.sizes, attention.sizes.dtype
        self.depth, self.values = padded(sizes.depth), padded(sizes.values)
        whole = sizes.depth % 8 == 0 and sizes.values % 8 == 0
        self.pipelined = target.capability >= 80 and whole
        matrix, (down, across) = Matrix(dtype, target.capability), tile.warps
        self.block = block = Block(
            matrix, down * across, described=described, asynchronous=self.pipelined
        )
        self.queries = Memory(block, "queries", dtype, tile.rows, self.depth + PAD)
        self.keys = Memory(block, "keys", dtype, tile.keys, self.depth + PAD)
        self.mixed_in = Memory(block, "values", dtype, tile.keys, self.values + PAD)
        self.keeps_queries = keeps_queries(sizes)
        pieces = self.depth // SIZE if self.keeps_queries else 1
        self.left = Registers(block, "left", dtype, tile.down * pieces * 8)
        self.right = Registers(block, "right", dtype, 8)
        self.powers = Registers(block, "powers", dtype, tile.down * tile.across * 8)
        self.scores = Registers(block, "scores", "float32", tile.down * tile.across * 8)
        self.mixed = Registers(block, "mixed", "float32", tile.down * self.values // SIZE * 8)
        self.top, self.new, self.share, self.other = (
            Registers(block, name, "float32", tile.down * 2)
            for name in ("top", "new_top", "share", "other")
        )
        joined = across * tile.rows
        self.tops = Memory(block, "tops", "float32", joined, 1)
        self.sums = Memory(block, "sums", "float32", joined, 1)
        self.parts = Memory(block, "parts", "float32", joined, self.values + SUMS_PAD)

    def allocated(self) -> tuple[Stmt, ...]:
        """Statements that give the buffers memory; parts of sums only where there are several."""
        memory = [self.queries, self.keys, self.mixed_in]
        if self.tile.warps[1] > 1:
            memory += [self.tops, self.sums, self.parts]
        registers = [self.left, self.right, self.powers, self.scores, self.mixed]
        return allocated(*memory, *registers, self.top, self.new, self.share, self.other)

    def row(self, piece: Any) -> PerWarp:
        """First row of a warp's piece."""
        return lambda warp: (
            (tirx.floordiv(warp, self.tile.warps[1]) * self.tile.down + piece) * SIZE
        )

    def key(self, piece: Any) -> PerWarp:
        """First key of a warp's piece, in the tile."""
        split = self.tile.warps[1]
        return lambda warp: (tirx.floormod(warp, split) * self.tile.across + piece) * SIZE

    def score_at(self, p: Any, j: Any, e: Any) -> Any:
        """Register of a score."""
        return (p * self.tile.across + j) * 8 + e

    def sum_at(self, p: Any, c: Any, e: Any) -> Any:
        """Register of a sum."""
        return (p * (self.values // SIZE) + c) * 8 + e

    def each_score(self, body: EachElement) -> Stmt:
        """Over a thread's scores."""
        return self._each(self.tile.across, body)

    def each_sum(self, body: EachElement) -> Stmt:
        """Over a thread's sums."""
        return self._each(self.values // SIZE, body)

    def _each(self, across: int, body: EachElement) -> Stmt:
        return unroll(
            self.tile.down,
            lambda p: unroll(across, lambda q: unroll(8, lambda e: body(p, q, e))),
        )


def of_row(piece: Any, element: Any) -> Any:
    """Register of a number that each row has one of, for the row of a register of sums."""
    return piece * 2 + element % 4 // 2


__all__ = ["Held", "of_row"]
