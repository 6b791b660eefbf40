"""What a block of threads holds of its rows, in shared memory, and the products of its steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import tvm
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.gpu.launch import Device, guarded, shared, strided
from burnish.targets.gpu.recurrence.product import VECTOR, Product, Sums
from burnish.targets.recurrence_form import Cell, Operands

ZERO = loops.const(0)


class Held:
    """The buffers of a block with ``rows`` rows; ``thread`` and its first ``row`` are set as its
    statements are made."""

    def __init__(self, cell: Cell, given: Operands, rows: int, device: Device) -> None:
        self.cell, self.given, self.rows = cell, given, rows
        self.stored = given.dtype
        self.dtype = "float32" if tvm.DataType(self.stored).itemsize == 2 else self.stored
        self.products = _products(cell, given, device.threads)
        most = max(product.used for product in self.products)
        self.threads = -(-most // device.warp) * device.warp
        self.thread: Expr = ZERO
        self.row: Expr = ZERO
        units, hidden = given.units, given.hidden
        self.states = shared([2, rows, units], self.dtype, "states")
        partial = shared([rows * most * VECTOR], self.dtype, "partial")
        self.sums = Sums(rows, self.threads, self.dtype, self.stored, partial)
        self.cells = shared([rows, hidden], self.dtype, "cells")
        self.between = shared([rows, hidden], self.dtype, "between")
        self.updates = shared([rows, units], self.dtype, "updates")
        self.kept = [self.states, partial]
        two = len(self.products) == 2
        self.kept += [self.cells] * (cell.kind == "LSTM") + [self.between] * two
        self.kept += [self.updates] * (two and given.w is None)

    @property
    def shared_bytes(self) -> int:
        return sum(
            tvm.DataType(str(buffer.dtype)).itemsize * math.prod(int(n) for n in buffer.shape)
            for buffer in self.kept
        )

    def there(self, r: Expr) -> list[Expr]:
        """The condition that the batch has a row: the last block may have fewer."""
        batch = self.given.batch
        known = loops.as_int(batch)
        if self.rows == 1 or (known is not None and known % self.rows == 0):
            return []
        return [self.row + r < batch]

    def each(self, units: int, body: Callable[[Expr, Expr], Stmt]) -> Stmt:
        """``body`` of each row of the block and each unit."""

        def item(flat: Expr) -> Stmt:
            r, j = (ZERO, flat) if self.rows == 1 else loops.split_two(flat, units)
            return guarded(self.there(r), body(r, j))

        return strided(self.rows * units, self.threads, self.thread, item)

    def wide(self, value: Expr) -> Expr:
        """As it is summed."""
        return value if self.stored == self.dtype else value.astype(self.dtype)

    def narrow(self, value: Expr) -> Expr:
        """As it is stored."""
        return value if self.stored == self.dtype else value.astype(self.stored)


def _products(cell: Cell, given: Operands, threads: int) -> list[Product]:
    """Of a step, in their order (rule 4)."""
    r, gates, units = given.r, int(given.r.shape[2]), given.units
    if given.w is not None:
        return [
            Product(r, range(gates), given.hidden, threads),
            Product(given.w, range(1), units, threads),
        ]
    if cell.kind == "GRU" and not cell.after:
        return [Product(r, range(2), units, threads), Product(r, range(2, 3), units, threads)]
    return [Product(r, range(gates), units, threads)]


__all__ = ["ZERO", "Held"]
