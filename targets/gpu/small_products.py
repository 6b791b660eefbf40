"""Many small products, as of attention's heads: ``y[b, i, j] = sum_k l[b, i, k] r[b, j, k]``.

With at most ``SIDE`` rows and columns, any device with work groups:

1. A work group computes a tile of ``rows`` by all columns of one product.
2. All of the right operand and the tile of the left are first put in local memory, ``k`` outermost,
   by work items that read neighbours; there is one barrier. What is over at the edges of the
   tile is the last row or column once more, and is not stored.
3. A work item sums ``4 x 4`` of the tile: two vectors of local memory for sixteen products, where
   those are the device's vectors (on CPUs, whose compilers make longer ones of neighbouring work
   items, they took three times as long).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.gpu.contraction import Contraction, read_contraction
from burnish.targets.gpu.launch import Device, launch_grid, spread, within
from burnish.targets.gpu.readings import neighbours

SIDE = 64
_EACH = 4
"""Rows and columns of a work item."""
_LEAST_DEPTH = 4
_LEAST_PRODUCTS = 2
_PAD = 4
"""Elements that a row of local memory is longer: stores of neighbours would meet in one bank."""


def emit(func: tirx.PrimFunc, device: Device) -> tirx.PrimFunc | None:
    """The kernel of a batch of small products, or ``None`` for any other function."""
    product = read_contraction(func)
    if product is None:
        return None
    sizes = [loops.as_int(product.count(name)) for name in ("rows", "columns", "depth")]
    if any(size is None for size in sizes):
        return None
    rows, columns, depth = (size for size in sizes if size is not None)
    batches = loops.as_int(product.count("batch"))
    if max(rows, columns) > SIDE or depth < _LEAST_DEPTH or min(rows, columns) < _EACH:
        return None
    if batches is not None and batches < _LEAST_PRODUCTS:
        return None
    for tile in (64, 32, 16, 8):
        if tile > 8 and tile >= 2 * rows:
            continue
        kernel = _Kernel(product, rows, columns, depth, tile, device.vector == _EACH * 4)
        if kernel.items <= device.threads and kernel.memory <= device.shared:
            return func.with_body(kernel.body())
    return None


@dataclass(frozen=True)
class _Kernel:
    """``tile`` is the rows of a work group; ``vectors`` whether it reads four values at once."""

    product: Contraction
    rows: int
    columns: int
    depth: int
    tile: int
    vectors: bool

    @property
    def across(self) -> int:
        """Work items along the columns."""
        return -(-self.columns // _EACH)

    @property
    def down(self) -> int:
        """Work items along the rows."""
        return self.tile // _EACH

    @property
    def items(self) -> int:
        """Of a work group."""
        return self.across * self.down

    @property
    def memory(self) -> int:
        """Bytes of local memory."""
        return self.depth * (self.across * _EACH + self.tile + 2 * _PAD) * 4

    def body(self) -> Stmt:
        """The launch."""
        product, sums = self.product, self.product.sums
        batches, tiles = product.count("batch"), -(-self.rows // self.tile)
        shapes = {"left": self.tile, "right": self.across * _EACH}
        shared = {
            name: tirx.decl_buffer([self.depth * (size + _PAD)], sums, name, scope="shared")
            for name, size in shapes.items()
        }
        total = loops.local([_EACH * _EACH], sums, "total")
        pair = {name: loops.local([_EACH], sums, f"{name}_part") for name in shapes}
        known = loops.as_int(batches) is not None

        def item(place: Any, across: Any, down: Any) -> Stmt:
            batch, tile = loops.split_two(place, tiles)
            first = tile * self.tile
            own = down * self.across + across

            def where_any(body: Stmt) -> Stmt:
                return body if known else loops.branch(batch < batches, body)

            def read(name: str, start: Any, v: Any) -> Stmt:
                return loops.store(pair[name], shared[name][(start + v,)], [v])

            def add(k: Any) -> Stmt:
                starts = {"left": down * _EACH, "right": across * _EACH}
                reads = [
                    (loops.vector if self.vectors else loops.unroll)(
                        _EACH,
                        partial(read, name, k * (shapes[name] + _PAD) + starts[name]),
                    )
                    for name in shapes
                ]
                return loops.seq(*reads, *(self._add(total, pair, i) for i in range(_EACH)))

            def finish(i: int, j: int) -> Stmt:
                row, column = first + down * _EACH + i, across * _EACH + j
                at = {**product.at("batch", batch), **product.at("rows", row)}
                at.update(product.at("columns", column))
                done = product.store(total[(loops.const(i * _EACH + j),)], at)
                return loops.branch(tirx.all(row < self.rows, column < self.columns), done)

            return loops.seq(
                *map(loops.allocate, [*shared.values(), total, *pair.values()]),
                where_any(self._fill(shared["right"], "columns", batch, loops.const(0), own)),
                where_any(self._fill(shared["left"], "rows", batch, first, own)),
                loops.unroll(_EACH * _EACH, lambda i: loops.store(total, tirx.const(0, sums), [i])),
                loops.serial(self.depth, add, "k"),
                where_any(loops.seq(*(finish(i, j) for i in range(_EACH) for j in range(_EACH)))),
            )

        return launch_grid(loops.product([batches, tiles]), self.across, self.down, item)

    def _add(self, total: Var, pair: dict[str, Var], i: int) -> Stmt:
        left = pair["left"][(loops.const(i),)]

        def one(j: Any) -> Stmt:
            place = [j + i * _EACH]
            return loops.store(total, total[tuple(place)] + left * pair["right"][(j,)], place)

        return loops.unroll(_EACH, one)

    def _fill(self, buffer: Var, axis: str, batch: Any, first: Any, own: Any) -> Stmt:
        """Rule 2, for one operand."""
        product = self.product
        row = int(buffer.shape[0]) // self.depth
        size = row - _PAD
        side: Expr = product.left if axis == "rows" else product.right
        extent = self.rows if axis == "rows" else self.columns
        turned = product.turned() if axis == "rows" else product
        along_depth = neighbours(turned, "depth")

        def copy(flat: Any) -> Stmt:
            if along_depth:
                at, k = loops.split_two(flat, self.depth)
            else:
                k, at = loops.split_two(flat, size)
            place = {**product.at("batch", batch), **product.at("depth", k)}
            place.update(product.at(axis, within(first + at, extent)))
            value = loops.substitute(side, place).astype(product.sums)
            return loops.store(buffer, value, [k * row + at])

        return spread(size * self.depth, self.items, own, copy)
