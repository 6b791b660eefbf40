"""Queries, keys and values from global to shared memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.attention_form import wide
from burnish.targets.cpu import loops
from burnish.targets.cuda.fragments import WARP
from burnish.targets.cuda.warp_attention.held import Held
from burnish.targets.cuda.warp_attention.tile import padded
from burnish.targets.cuda.warps import Memory
from burnish.targets.gpu.attention_rows import BlockRows
from burnish.targets.gpu.launch import i32, rolled, unroll

Index = Callable[[Any, Any], tuple[Any, ...]]


def copy_queries(held: Held, where: BlockRows) -> Stmt:
    """Of the block's rows."""

    def index(row: Any, column: Any) -> tuple[Any, ...]:
        query, head = where.query(row, held.sizes)
        return wide(where.batch), query, head, column

    source, depth = held.attention.q, held.sizes.depth
    return _copy(held, held.queries, held.tile.rows, source, depth, index, where.exists)


def copy_keys(held: Held, where: BlockRows, first: Any) -> Stmt:
    """Of the tile that begins with the key ``first``."""
    return _copy_tile(held, where, first, held.keys, held.attention.k, held.sizes.depth)


def copy_values(held: Held, where: BlockRows, first: Any) -> Stmt:
    """Of the same keys."""
    return _copy_tile(held, where, first, held.mixed_in, held.attention.v, held.sizes.values)


def _copy_tile(
    held: Held, where: BlockRows, first: Any, to: Memory, source: Var, width: int
) -> Stmt:
    def index(row: Any, column: Any) -> tuple[Any, ...]:
        return wide(where.batch), wide(first) + row, wide(where.head), column

    def exists(row: Any) -> Expr:
        return wide(first) + row < wide(held.sizes.keys)

    return _copy(held, to, held.tile.keys, source, width, index, exists)


def _copy(
    held: Held,
    to: Memory,
    rows: int,
    source: Var,
    width: int,
    index: Index,
    exists: Callable[[Any], Expr],
) -> Stmt:
    """``rows`` of ``width`` elements, padded with zeros to whole pieces."""
    vector = math.gcd(width, 8)
    line = padded(width) // vector
    warps = held.block.warps
    threads = warps * WARP
    total = rows * line
    zero = tirx.const(0, held.sizes.dtype)

    def chunk(flat: Any) -> Stmt:
        row, column = tirx.floordiv(flat, line), tirx.floormod(flat, line) * vector
        inside = exists(row)
        if padded(width) != width:
            inside = tirx.all(inside, column < width)
        return loops.vector(
            vector,
            lambda v: to.put(
                row,
                column + v.astype("int32"),
                tirx.if_then_else(inside, source[index(row, wide(column) + v)], zero),
            ),
        )

    def element(flat: Any) -> Stmt:
        if vector > 1:
            return chunk(flat)
        row, column = tirx.floordiv(flat, line), tirx.floormod(flat, line)
        inside = tirx.all(exists(row), column < width)
        value = tirx.if_then_else(inside, source[index(row, wide(column))], zero)
        return to.put(row, column, value)

    def turn(warp: Any, lane: Any) -> Stmt:
        def one(at: Any) -> Stmt:
            flat = (at * warps + warp) * WARP + lane
            whole = total % threads == 0
            return element(flat) if whole else loops.branch(flat < total, element(flat))

        most = 16 if held.pipelined else 4  # what is copied goes through registers
        times, rest = divmod(-(-total // threads), most)
        return loops.seq(
            rolled(i32(times), lambda t: unroll(most, lambda u: one(t * most + u)), "turn"),
            unroll(rest, lambda u: one(u + times * most)),
        )

    return held.block.each(turn)


__all__ = ["copy_keys", "copy_queries", "copy_values"]
