"""Which products have few rows, and how many work items share what of them."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import TensorLoad
from tvm.ir.prim import Cast

from burnish.targets.cpu import loops
from burnish.targets.gpu.contraction import Contraction
from burnish.targets.gpu.readings import Reading
from burnish.targets.gpu.teams import power

ROWS = 8
_LEAST_DEPTH = 8
"""Shorter sums are not worth a group of work items."""
_ITEMS = 128
"""Of a work group."""
_GROUPS = 400
"""Work groups that keep a large GPU busy."""


@dataclass(frozen=True)
class Plan:
    """Sizes as rule 3 names them."""

    across: int
    down: int
    each: int = 1


def plan_of(product: Contraction, reading: Reading, rows: int, items: int) -> Plan:
    """Rule 3: enough work groups first, then columns that share what is read of the rows."""
    items = min(items, _ITEMS)
    extents = [loops.as_int(product.count(name)) for name in ("batch", "columns")]
    many = _GROUPS * _ITEMS
    batches, columns = (n if n is not None else many for n in extents)
    depth = loops.as_int(product.count("depth")) or many
    if reading.axis == "columns":
        across = min(power(-(-columns // reading.lanes)), 32, items)
        down = min(items // across, power(depth))
        return Plan(across, down)
    chunks = max(1, depth // reading.lanes)
    across = min(32, power(chunks), items)
    while across < items and 2 * across <= chunks and batches * columns * across < many:
        across *= 2
    down = min(items // across, power(columns))
    each = 4 if rows < 8 else 2
    while each > 1 and batches * columns < _GROUPS * down * each:
        each //= 2
    return Plan(across, down, each)


def operands_dtype(product: Contraction) -> str:
    """Empty where the operands' types differ, or one is decoded."""
    dtypes = set()
    for side in (product.left, product.right):
        while isinstance(side, Cast):
            side = side.value
        dtypes.add(str(side.source.dtype) if isinstance(side, TensorLoad) else "")
    return dtypes.pop() if len(dtypes) == 1 else ""


def is_worth(product: Contraction) -> bool:
    """Whether there are columns to share the rows, and enough to sum."""
    depth, columns = loops.as_int(product.count("depth")), loops.as_int(product.count("columns"))
    return columns != 1 and columns != 0 and (depth is None or depth >= _LEAST_DEPTH)


__all__ = ["ROWS", "Plan", "is_worth", "operands_dtype", "plan_of"]
