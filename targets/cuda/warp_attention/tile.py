"""How many rows and keys a block of threads works on at a time, by what fits it."""

from __future__ import annotations

from dataclasses import dataclass

from burnish.targets.attention_form import Sizes
from burnish.targets.cpu import loops
from burnish.targets.cuda.fragments import SIZE, WARP
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.gpu.attention_rows import count_of_blocks

PAD = 8
"""Elements that a row of shared memory is longer than its content: 16 bytes."""
SUMS_PAD = 4
"""The same of float32, where parts of sums are joined."""
_SINCE = {"float16": 75, "bfloat16": 80}
_ENOUGH = 100
"""Blocks that keep a large GPU busy."""
_IN_REGISTERS = 128
"""Elements of a query up to which they are kept in registers."""
_MOST = 256
"""Elements of a query and a value."""
_HELD = 168
"""Registers that may be held throughout, of 255: with 176, kernels spill."""
_WORKING = 96
"""Registers beside those, at most: with room for 64, kernels spill."""
_REGISTERS = 65536
"""Of a multiprocessor, on every architecture."""


@dataclass(frozen=True)
class Tile:
    """Warps along rows and along keys, pieces of 16 rows a warp, and keys of a tile."""

    warps: tuple[int, int]
    down: int
    keys: int

    @property
    def rows(self) -> int:
        """Of a block."""
        return SIZE * self.warps[0] * self.down

    @property
    def across(self) -> int:
        """Pieces of 16 keys that a warp has of a tile."""
        return self.keys // SIZE // self.warps[1]

    def shared_memory(self, sizes: Sizes) -> int:
        """Bytes of a block, at most."""
        depth, values = padded(sizes.depth) + PAD, padded(sizes.values) + PAD
        operands = 2 * (self.rows * depth + self.keys * (depth + values))
        split = self.warps[1]
        row = padded(sizes.values) + SUMS_PAD + 2  # sums, the largest score, the sum of powers
        joined = 4 * split * self.rows * row if split > 1 else 0
        return operands + joined + 4 * self.rows

    def at_once(self, sizes: Sizes, target: CudaTarget) -> int:
        """Blocks that a multiprocessor holds: its shared memory does, and registers suffice."""
        threads = WARP * self.warps[0] * self.warps[1]
        room = _REGISTERS // (threads * (self.registers(sizes) + _WORKING))
        return max(1, min(room, target.shared_memory // self.shared_memory(sizes)))

    def registers(self, sizes: Sizes) -> int:
        """Of a thread, that are held throughout: sums, scores, queries."""
        queries = padded(sizes.depth) // 4 if keeps_queries(sizes) else 4
        return self.down * (padded(sizes.values) // 2 + 8 * self.across + queries)


LARGE = (Tile((4, 1), 2, 64), Tile((4, 1), 1, 64), Tile((4, 1), 1, 32))
SMALL = (Tile((2, 2), 1, 64), Tile((2, 1), 1, 32))
FEW = (Tile((1, 4), 1, 128), Tile((1, 4), 1, 64), Tile((1, 2), 1, 32))
"""Of many rows, of too few for many blocks, and of up to 16; not measured on a GPU."""


def choose_tile(sizes: Sizes, target: CudaTarget) -> Tile | None:
    """``None`` where tensor cores cannot take the sizes."""
    if target.capability < _SINCE.get(sizes.dtype, 1000):
        return None
    if max(sizes.depth, sizes.values) > _MOST:
        return None
    rows = loops.as_int(sizes.rows)
    known = FEW if rows is not None and rows <= SIZE else (*LARGE, *SMALL)
    fitting = [
        tile
        for tile in known
        if tile.shared_memory(sizes) <= target.shared_memory and tile.registers(sizes) <= _HELD
    ]
    for tile in fitting:
        blocks = loops.as_int(count_of_blocks(sizes, tile.rows))
        if known is FEW or blocks is None or blocks >= _ENOUGH:
            return tile
    return fitting[-1] if fitting else None


def keeps_queries(sizes: Sizes) -> bool:
    """Whether queries stay in registers, beside the sums and the scores of a tile of 32 keys."""
    taken = padded(sizes.depth) // 4 + padded(sizes.values) // 2 + 16
    return sizes.depth <= _IN_REGISTERS and taken <= _HELD


def padded(extent: int) -> int:
    """To whole pieces."""
    return -(-extent // SIZE) * SIZE


__all__ = ["PAD", "SUMS_PAD", "Tile", "choose_tile", "keeps_queries", "padded"]
