"""Queries, keys and values to local memory, as float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.attention_form import as_float32, wide
from burnish.targets.cpu import loops
from burnish.targets.gpu.attention.held import Held, ItemRows, or_zero
from burnish.targets.gpu.launch import i32


def copy_queries(held: Held, where: ItemRows) -> Stmt:
    """Of the group's rows, scaled."""
    attention, sizes = held.attention, held.sizes

    def element(flat: Expr) -> Stmt:
        row, column = tirx.floordiv(flat, sizes.depth), tirx.floormod(flat, sizes.depth)
        query, head = where.query(row, sizes)
        value = as_float32(attention.q[(wide(where.batch), query, head, wide(column))])
        value = value * tirx.const(attention.scale, "float32")
        return held.rows.put(row, column, or_zero(where.exists(row), value))

    return _copy(held.block.rows * sizes.depth, held.block.items, where.item, element)


def copy_keys(held: Held, where: ItemRows, first: Any) -> Stmt:
    """Of the block that begins with the key ``first``."""
    return _copy_tile(held, where, held.attention.k, held.sizes.depth, first)


def copy_values(held: Held, where: ItemRows, first: Any) -> Stmt:
    """Of the same keys, in their place."""
    return _copy_tile(held, where, held.attention.v, held.sizes.values, first)


def _copy_tile(held: Held, where: ItemRows, source: Var, width: int, first: Any) -> Stmt:
    def element(flat: Expr) -> Stmt:
        row, column = tirx.floordiv(flat, width), tirx.floormod(flat, width)
        key = wide(first) + row
        value = source[(wide(where.batch), key, wide(where.head), wide(column))]
        exists = key < wide(held.sizes.keys)
        return held.tile.put(row, column, or_zero(exists, as_float32(value)))

    return _copy(held.block.keys * width, held.block.items, where.item, element)


def _copy(extent: int, items: int, item: Expr, body: Callable[[Expr], Stmt]) -> Stmt:
    """Elements of a tile in turns of all items."""

    def turn(at: Any) -> Stmt:
        flat = at * items + item
        whole = extent % items == 0
        return body(flat) if whole else loops.branch(flat < extent, body(flat))

    return loops.serial(i32(-(-extent // items)), turn, "copy")


__all__ = ["copy_keys", "copy_queries", "copy_values"]
