"""The rows of queries that a block of threads has, and the keys that it goes over.

A head of keys has rows ``[queries * group]``: those of the heads of queries that share it. Blocks
have some rows each, of one head of one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets.attention_form import Attention, Sizes, up, wide
from burnish.targets.cpu import loops


@dataclass(frozen=True)
class BlockRows:
    """Of a block: its batch, head of keys, first row, and how many its head has."""

    batch: Any
    head: Any
    start: Any
    rows: Any

    def exists(self, row: Any) -> Expr:
        """Whether a row of the block is one of the head's."""
        return wide(self.start) + row < self.rows

    def query(self, row: Any, sizes: Sizes) -> tuple[Expr, Expr]:
        """Place and head of a row of the block."""
        flat = wide(self.start) + row
        head = wide(self.head) * sizes.group + tirx.floormod(flat, sizes.group)
        return tirx.floordiv(flat, sizes.group), head


def count_of_blocks(sizes: Sizes, tall: int) -> loops.Extent:
    """Blocks of ``tall`` rows."""
    return loops.product([sizes.batch, sizes.key_heads, up(sizes.rows, tall)])


def rows_of(attention: Attention, place: Any, tall: int, body: Callable[[BlockRows], Stmt]) -> Stmt:
    """``body`` of the rows of the block at ``place``."""
    sizes = attention.sizes
    count = count_of_blocks(sizes, tall)
    if attention.causal:
        # The last rows see most keys: they go first.
        place = count - 1 - place
    rest, at = loops.split_two(place, up(sizes.rows, tall))
    batch, head = loops.split_two(rest, sizes.key_heads)
    inside = tirx.all(place >= 0, place < count)
    return loops.named(
        lambda batch, head, start, rows: body(BlockRows(batch, head, start, rows)),
        batch=batch,
        head=head,
        start=at * tall,
        # A block is launched even of none.
        rows=tirx.Select(inside, wide(sizes.rows), loops.const(0)),
    )


def tiles_of_keys(attention: Attention, where: BlockRows, tall: int, keys: int) -> Any:
    """Tiles of ``keys`` that a block of ``tall`` rows looks at: those that a causal mask hides from
    all its rows are left out."""
    sizes = attention.sizes
    count: Any = wide(up(sizes.keys, keys))
    if attention.causal:
        last = tirx.min(where.rows, wide(where.start) + tall) - 1
        seen = attention.last_key(tirx.floordiv(last, sizes.group)) + 1
        count = tirx.min(count, tirx.floordiv(tirx.max(seen, 0) + keys - 1, keys))
    return tirx.Select(where.rows > 0, count, loops.const(0))


__all__ = ["BlockRows", "count_of_blocks", "rows_of", "tiles_of_keys"]
