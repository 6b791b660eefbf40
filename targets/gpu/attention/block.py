"""How many rows and keys a group works on at a time, by what fits it."""

from __future__ import annotations

from dataclasses import dataclass

from burnish.targets.attention_form import Sizes
from burnish.targets.cpu import loops
from burnish.targets.gpu.attention_rows import count_of_blocks

ACROSS = 16
"""Work items along the keys, or the columns of values, of a tile."""
_MOST_SUMS = 64
"""Registers of a work item for sums."""
_LEAST_DEPTH = 2
"""A product alone, with no loop: PoCL 3.1 was seen to run it wrongly in a loop of open length."""
FEW_ROWS = 4


@dataclass(frozen=True)
class Block:
    """Rows and keys that a group of ``items`` works on at a time; ``direct`` is part 3."""

    rows: int
    keys: int
    items: int
    direct: bool = False

    @property
    def segments(self) -> int:
        """Items that share a row's softmax."""
        return min(self.items // self.rows, ACROSS)

    def local_memory(self, sizes: Sizes) -> int:
        """Bytes of a group."""
        floats = self.rows * (sizes.depth + self.keys + 1 + 2 * self.segments + 2)
        if self.direct:
            return 4 * (floats + self.items * self.rows)
        return 4 * (floats + self.keys * (max(sizes.depth, sizes.values) + 1))

    def sums(self, sizes: Sizes) -> int:
        """Registers of an item for the weighted sum."""
        if self.direct:
            return self.rows * -(-sizes.values // self.items)
        return self.rows * ACROSS // self.items * -(-sizes.values // ACROSS)


BLOCKS = (
    Block(64, 32, 128),
    Block(32, 32, 128),
    Block(16, 32, 128),
    Block(16, 16, 128),
    Block(8, 16, 128),
)
"""By preference; not measured on a GPU."""


@dataclass(frozen=True)
class Limits:
    """Of a device: work items and bytes of local memory a group may have, groups it wants."""

    items: int
    local_memory: int
    groups: int


def choose_block(sizes: Sizes, limits: Limits) -> Block | None:
    """The first block that fits and gives enough groups; else the smallest that fits."""
    if sizes.depth < _LEAST_DEPTH:
        return None
    rows = loops.as_int(sizes.rows)
    known = [block for block in BLOCKS if rows is None or rows > 16 or block.rows <= 16]
    if rows is not None and rows <= FEW_ROWS:
        few = min(limits.items, 256)
        known = [Block(1 << (rows - 1).bit_length(), few, few, direct=True)]
    fitting = [
        block
        for block in known
        if block.local_memory(sizes) <= limits.local_memory
        and block.items <= limits.items
        and block.sums(sizes) <= _MOST_SUMS
    ]
    for block in fitting:
        groups = loops.as_int(count_of_blocks(sizes, block.rows))
        if groups is None or groups >= limits.groups:
            return block
    return fitting[-1] if fitting else None


__all__ = ["ACROSS", "Block", "Limits", "choose_block"]
