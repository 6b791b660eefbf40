"""What a group holds: queries, a block of keys or values, and scores in local memory; sums in
registers; and which of them an item works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets.attention_form import Attention
from burnish.targets.cpu import loops
from burnish.targets.gpu.attention.block import ACROSS, Block
from burnish.targets.gpu.attention_rows import BlockRows
from burnish.targets.gpu.launch import i32, unroll
from burnish.targets.gpu.padded_rows import PaddedRows

ZERO = tirx.const(0.0, "float32")


@dataclass(frozen=True)
class ItemRows(BlockRows):
    """A group's rows, and the item in the group."""

    item: Expr


class Held:
    """The buffers of one kernel, and how its items share out rows, keys and columns."""

    def __init__(self, attention: Attention, block: Block) -> None:
        self.attention, self.block, self.sizes = attention, block, attention.sizes
        sizes = attention.sizes
        self.segments, self.turns = block.segments, block.keys // block.segments
        self.rows = PaddedRows("queries", block.rows, sizes.depth)
        self.scores = PaddedRows("scores", block.rows, block.keys + 1)
        self.tops, self.sums = (
            PaddedRows(name, block.rows, self.segments) for name in ("tops", "sums")
        )
        self.shrink = PaddedRows("shrink", block.rows, 1)
        self.weight = PaddedRows("weight", block.rows, 1)
        self.tile = PaddedRows("tile", block.keys, max(sizes.depth, sizes.values) + 1)
        self.spread = PaddedRows("spread", block.items, block.rows)
        self.mine = loops.local((self.turns,), "float32", "mine")
        self.top, self.new, self.share, self.value = (
            loops.local((1,), "float32", name) for name in ("top", "new_top", "share", "value")
        )
        if block.direct:
            self.down, self.across = 1, block.items
            self.columns = -(-sizes.values // block.items)
            # Keys of a block are shared out where there are more items than columns.
            self.splits = min(8, max(1, block.items // sizes.values))
        else:
            self.down, self.across = block.items // ACROSS, ACROSS
            self.columns, self.splits = -(-sizes.values // ACROSS), 1
        self.tall = block.rows // self.down
        self.mixed = loops.local((self.tall, self.columns), "float32", "mixed")

    def allocated(self) -> tuple[Stmt, ...]:
        """Statements that give the buffers memory."""
        rows = [self.rows, self.scores, self.tops, self.sums, self.shrink, self.weight]
        rows += [self.spread] if self.block.direct else [self.tile]
        registers = [self.mine, self.mixed, self.top, self.new, self.share, self.value]
        return tuple(map(loops.allocate, [*(one.buffer for one in rows), *registers]))

    def each(self, body: Callable[[Any, Any], Stmt]) -> Stmt:
        """Over the sums of an item: its rows and columns."""
        return unroll(self.tall, lambda i: unroll(self.columns, lambda j: body(i, j)))

    def segment(self, where: ItemRows) -> tuple[Expr, Expr]:
        """The row whose softmax an item shares in, and its part of the row's keys."""
        return tirx.floordiv(where.item, self.segments), tirx.floormod(where.item, self.segments)

    def with_row(self, where: ItemRows, body: Stmt) -> Stmt:
        """For items that share in a row's softmax."""
        used = self.block.rows * self.segments
        return body if used == self.block.items else loops.branch(where.item < used, body)

    def place(self, where: ItemRows) -> tuple[Expr, Expr, Expr]:
        """An item's first row, first column, and part of the keys, of the weighted sum."""
        if not self.block.direct:
            down = tirx.floordiv(where.item, self.across)
            return down, tirx.floormod(where.item, self.across), i32(0)
        if self.splits == 1:
            return i32(0), where.item, i32(0)
        values = self.sizes.values
        return i32(0), tirx.floormod(where.item, values), tirx.floordiv(where.item, values)


def or_zero(condition: Expr, value: Expr) -> Expr:
    """``value`` where it exists, else 0; it is not read there."""
    return tirx.if_then_else(condition, value, ZERO)


__all__ = ["ZERO", "Held", "ItemRows", "or_zero"]
