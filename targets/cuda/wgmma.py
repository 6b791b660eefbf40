"""Products on tensor cores by warp groups, on ``sm_90a``: :mod:`burnish.targets.cuda.tensor_core`
with other instructions, for products that give enough tiles of their size.

1. A block computes a tile of the output, each warp group 64 rows of it, over 128 bytes of ``k`` at
   a time, operands read from shared memory (:mod:`burnish.targets.cuda.warpgroup`).
2. Copies to shared memory go ahead by ``stages - 1`` steps, asynchronously, 16 bytes at a time.
   Operands whose rows are not whole 16 bytes, or that give too few tiles, are left to the next
   rule.
3. Sums go to shared memory, and from there through all that follows to the output.

Not yet run on a GPU: an emulation of the instructions runs the kernels' CUDA C++ in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.s_tir.dlight.gpu import matmul as products
from tvm.tirx import BufferStore

from burnish.targets.cuda.products import Form, arrange, find
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.cuda.tiles import bind_copy, copy_out, store_sums, tiles_of
from burnish.targets.cuda.warpgroup import DTYPES, ROWS, WARPS, Group, place_c, swizzled
from burnish.targets.cuda.warpgroup_intrinsics import intrinsics


@dataclass(frozen=True)
class Tile:
    """Rows, of which each warp group computes 64, columns, and the steps in flight."""

    rows: int
    columns: int
    stages: int

    @property
    def groups(self) -> int:
        return self.rows // ROWS

    def count(self, sizes: Sequence[int]) -> int:
        """Tiles of an output of ``batch, rows, columns``."""
        return tiles_of(sizes, self.rows, self.columns)


TILES = (Tile(128, 128, 3), Tile(64, 128, 4), Tile(64, 64, 4))
"""Such that two blocks or more fit a multiprocessor's memory and registers: while one waits for its
products, another issues its own. Not tried on a GPU."""


def choose_tile(sizes: Sequence[int], target: CudaTarget) -> Tile | None:
    """The largest tile that gives each multiprocessor one, and is not mostly padding; the smallest
    where it gives half of them one, as the next rule's would be yet smaller."""
    for tile in TILES:
        enough = target.multiprocessors // (2 if tile is TILES[-1] else 1)
        padded = tile.count(sizes) * tile.rows * tile.columns
        if tile.count(sizes) >= enough and padded <= 2 * sizes[0] * sizes[1] * sizes[2]:
            return tile
    return None


def emit(func: tirx.PrimFunc, target: CudaTarget) -> tirx.PrimFunc | None:
    """The kernel laid out, or ``None`` where it is no such product."""
    if not target.warp_groups:
        return None
    sch = s_tir.Schedule(func)
    found = find(sch, target)
    if found is None:
        return None
    main, form = found
    tile = choose_tile(form.sizes, target)
    if tile is None or not form.aligned or form.matrix.dtype not in DTYPES:
        return None
    return laid_out(sch, main, form, tile)


def laid_out(sch: s_tir.Schedule, main: Any, form: Form, tile: Tile) -> tirx.PrimFunc:
    """The kernel in tiles of that size."""
    group = Group(form.matrix.dtype, tile.columns, form.columns_last)
    names = intrinsics(group)
    depth = group.depth
    arrange(sch, main, form, (tile.rows, tile.columns, depth))

    batch, i, j, k = sch.get_loops(main)
    i, i_in = sch.split(i, [None, ROWS])
    j, j_in = sch.split(j, [None, tile.columns])
    k, k_in = sch.split(k, [None, depth])
    sch.reorder(i, j, k, i_in, j_in, k_in)
    inner, pieces = main, sch.blockize(i_in)
    i0, i1 = sch.split(i, [None, tile.groups])
    sch.reorder(batch, j, i0, i1, k)
    place = sch.fuse(batch, j, i0)
    sch.bind(place, "blockIdx.x")
    sch.bind(i1, "threadIdx.z")

    for operand in (0, 1):
        _to_shared(sch, pieces, operand, k, tile, group, form.vectors[operand])
    to_output = sch.cache_write(pieces, 0, "shared.dyn")
    from_registers = sch.cache_write(pieces, 0, "local")
    sch.reverse_compute_at(from_registers, i1)
    sch.reverse_compute_at(to_output, place)

    def spread(s: Any, r: Any, c: Any) -> list[Any]:
        return [s, r // ROWS, c // tile.columns, *place_c(r % ROWS, c % tile.columns)]

    sch.transform_layout(from_registers, ("read", 0), spread)
    start = sch.decompose_reduction(pieces, k)
    start_inner = sch.get_child_blocks(start)[0]
    sch.tensorize(sch.get_loops(start_inner)[-2], names.fill)
    sch.tensorize(sch.get_loops(inner)[-3], names.multiply)
    store_sums(sch, from_registers, names.store)

    copy_out(sch, to_output, (tile.groups, WARPS))

    late = min(tile.stages, -(-form.sizes[3] // depth)) - 1
    if late:
        sch.annotate(k, "software_pipeline_stage", [0, 0, late])
        sch.annotate(k, "software_pipeline_order", [0, 1, 2])
        sch.annotate(k, "software_pipeline_async_stages", [0])
    return _with_pieces_exchanged(sch.mod["main"], group)


def _to_shared(
    sch: s_tir.Schedule, block: Any, operand: int, k: Any, tile: Tile, group: Group, vector: int
) -> None:
    """Part 2."""
    copy = sch.cache_read(block, operand, "shared.dyn")
    sch.compute_at(copy, k)
    products.auto_inline_producers(sch, copy)
    depth, n, zero = group.depth, tile.columns, tirx.const(0, "int32")

    def in_rows(s: Any, row: Any, column: Any) -> list[Any]:
        if operand == 0:
            return [s, row // ROWS, column // depth, row % ROWS, column % depth]
        if not group.columns_last:
            return [s, row // n, column // depth, zero, row % n, column % depth]
        half = zero if n == depth else column % n // depth
        return [s, column // n, row // depth, half, row % depth, column % depth]

    bind_copy(sch, copy, (tile.groups, WARPS), vector)
    sch.transform_layout(copy, ("write", 0), in_rows)


def _with_pieces_exchanged(func: tirx.PrimFunc, group: Group) -> tirx.PrimFunc:
    """``func`` with operands stored to shared memory as the instructions read them."""

    def store(old: BufferStore) -> BufferStore:
        buffer = old.buffer
        rank = len(buffer.shape)
        if buffer.scope() != "shared.dyn" or str(buffer.dtype) != group.dtype or rank < 5:
            return old
        *outer, row, column = old.indices
        piece = swizzled(row, column // group.piece)
        return BufferStore(
            buffer, old.value, [*outer, row, piece * group.piece + column % group.piece]
        )

    return func.with_body(tvm_ffi.structural_map(func.body, [(BufferStore, store)], order="post"))
