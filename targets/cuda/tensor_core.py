"""Products on tensor cores: ``C[s, i, j] = sum_k A[s, i, k] B[s, j, k]``.

Which kernels are of this form says :mod:`burnish.targets.cuda.products`.

1. A block of threads computes a tile of the output, ``rows x columns``, over ``depth`` of ``k`` at
   a time. Tiles are smaller where the output has too few for the GPU's multiprocessors. What is
   left over of odd sizes is padded with zeros as it is read.
2. Operands go from global to shared memory, some steps (``stages``) ahead: from sm_80 on by
   asynchronous copies of 16 bytes where whole ones can be taken. A row of shared memory is 16
   bytes longer than its content, so that the eight rows that ``ldmatrix`` reads at once lie in
   different banks. ``B`` keeps its columns last only in two-byte floats, which ``ldmatrix`` turns.
3. Each warp multiplies ``16 x 16 x 32 bytes`` at a time (:mod:`burnish.targets.cuda.mma`), its
   operands read by ``ldmatrix`` one step ahead.
4. The sums go to shared memory, and from there through all that follows (bias, activation,
   rounding) to the output, in whole rows.

After the schedules of TVM's tests for ``mma`` and of its dlight; ours differ in the choice of tiles
and in reading ``B`` with either axis last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir.dlight.gpu import matmul as products

from burnish.targets.cuda import mma
from burnish.targets.cuda.fragments import SIZE, place_c
from burnish.targets.cuda.products import Form, arrange, find
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.cuda.tiles import SUMS_PAD, bind_copy, copy_out, store_sums, tiles_of

_PAD = 16
"""Bytes that a row of an operand in shared memory is longer than its content."""
ENOUGH = 100
"""Tiles that keep a large GPU busy."""


@dataclass(frozen=True)
class Tile:
    """Sizes of a tile (``depth`` in bytes), the warps along its rows and columns, and the steps in
    flight."""

    rows: int
    columns: int
    depth: int
    warps: tuple[int, int] = (2, 2)
    stages: int = 3

    @property
    def shared_memory(self) -> int:
        """Bytes of a block, at most: operands of every stage, and sums on their way out."""
        operands = (self.rows + self.columns) * (self.depth + _PAD) * self.stages
        return operands + self.rows * (self.columns + SUMS_PAD) * 4

    def count(self, sizes: Sequence[int]) -> int:
        """Tiles of an output of ``batch, rows, columns``."""
        return tiles_of(sizes, self.rows, self.columns)


TILES = (
    Tile(128, 128, 128),
    Tile(128, 128, 64),
    Tile(64, 128, 64),
    Tile(64, 64, 128),
    Tile(32, 32, 128, stages=4),
)
"""By trial on an H100: 4096 x 4096 x 4096 of float16 ran at 256 TFLOP/s with the first, 225 with
the next."""
SYNCHRONOUS = (
    Tile(128, 64, 64, stages=2),
    Tile(64, 64, 64, stages=2),
    Tile(32, 32, 128, stages=2),
)
"""Of sm_75, whose copies ahead go through registers; not tried on a GPU."""


def tiles(target: CudaTarget) -> tuple[Tile, ...]:
    """Those that an architecture has a choice of, the largest first."""
    return TILES if target.capability >= 80 else SYNCHRONOUS


def choose_tile(sizes: Sequence[int], target: CudaTarget) -> Tile:
    """The largest tile that fits and gives enough of them; else the smallest."""
    known = tiles(target)
    for tile in known:
        if tile.shared_memory <= target.shared_memory and tile.count(sizes) >= ENOUGH:
            return tile
    return known[-1]


def emit(
    func: tirx.PrimFunc, target: CudaTarget, *, described: bool = False
) -> tirx.PrimFunc | None:
    """The kernel laid out, or ``None`` where it is no such product.

    ``described`` puts the descriptions of intrinsics in their place: the same kernel, which can be
    run on a CPU.
    """
    sch = s_tir.Schedule(func)
    found = find(sch, target)
    if found is None:
        return None
    main, form = found
    return _laid_out(sch, main, form, choose_tile(form.sizes, target), described)


def _laid_out(
    sch: s_tir.Schedule, main: Any, form: Form, tile: Tile, described: bool
) -> tirx.PrimFunc:
    matrix = form.matrix
    names = mma.intrinsics(matrix, form.columns_last)
    if described:
        names = names.of_descriptions()
    tile_depth = tile.depth // matrix.bytes
    arrange(sch, main, form, (tile.rows, tile.columns, tile_depth))
    batch, i, j, k = sch.get_loops(main)
    i, i_in = sch.split(i, [None, SIZE])
    j, j_in = sch.split(j, [None, SIZE])
    k, k_in = sch.split(k, [None, matrix.depth])
    sch.reorder(i, j, k, i_in, j_in, k_in)
    inner, pieces = main, sch.blockize(i_in)
    down, across = tile.warps
    i0, i1, i2 = sch.split(i, [None, down, tile.rows // SIZE // down])
    j0, j1, j2 = sch.split(j, [None, across, tile.columns // SIZE // across])
    k0, k1 = sch.split(k, [None, tile_depth // matrix.depth])
    sch.reorder(batch, j0, i0, i1, j1, k0, k1, i2, j2)
    place = sch.fuse(batch, j0, i0)
    sch.bind(place, "blockIdx.x")
    sch.bind(i1, "threadIdx.z")
    sch.bind(j1, "threadIdx.y")

    for operand in (0, 1):
        _to_shared(sch, pieces, operand, k0, tile, form)
    for operand in (0, 1):
        _to_registers(sch, pieces, operand, k1, form, names)

    to_output = sch.cache_write(pieces, 0, "shared.dyn")
    from_registers = sch.cache_write(pieces, 0, "warp")
    sch.reverse_compute_at(from_registers, j1)
    sch.reverse_compute_at(to_output, place)
    _in_fragments(sch, from_registers, ("read", 0), (SIZE, SIZE), place_c)
    start = sch.decompose_reduction(pieces, k0)
    start_inner = sch.get_child_blocks(start)[0]
    sch.tensorize(sch.get_loops(start_inner)[-2], names.fill)
    sch.tensorize(sch.get_loops(inner)[-3], names.multiply)
    store_sums(sch, from_registers, names.store)

    copy_out(sch, to_output, tile.warps)

    steps = -(-form.sizes[3] // tile_depth)
    late = min(tile.stages, steps) - 1
    if late:
        # Of a step over k0: two copies, then the pipeline over k1 as its start, middle and end.
        sch.annotate(k0, "software_pipeline_stage", [0, 0, late, late, late])
        sch.annotate(k0, "software_pipeline_order", [0, 1, 2, 3, 4])
        if matrix.capability >= 80:
            sch.annotate(k0, "software_pipeline_async_stages", [0])
    sch.annotate(k1, "software_pipeline_stage", [0, 0, 1])
    sch.annotate(k1, "software_pipeline_order", [0, 1, 2])
    return sch.mod["main"]


def _to_shared(
    sch: s_tir.Schedule, block: Any, operand: int, k0: Any, tile: Tile, form: Form
) -> None:
    """Part 2."""
    copy = sch.cache_read(block, operand, "shared.dyn")
    sch.compute_at(copy, k0)
    products.auto_inline_producers(sch, copy)
    vector = form.matrix.vector
    sch.storage_align(copy, 0, axis=-2, factor=2 * vector, offset=vector)
    bind_copy(sch, copy, tile.warps, form.vectors[operand])


def _to_registers(
    sch: s_tir.Schedule, block: Any, operand: int, k1: Any, form: Form, names: mma.Names
) -> None:
    """Part 3: an operand's pieces."""
    copy = sch.cache_read(block, operand, "warp")
    sch.compute_at(copy, k1)
    matrix = form.matrix
    if operand == 0:
        _in_fragments(sch, copy, ("write", 0), (SIZE, matrix.depth), matrix.place_a)
        name = names.load_a
    elif form.columns_last:
        shape = (matrix.depth, SIZE)
        _in_fragments(sch, copy, ("write", 0), shape, lambda k, n: matrix.place_b(n, k))
        name = names.load_b
    else:
        _in_fragments(sch, copy, ("write", 0), (SIZE, matrix.depth), matrix.place_b)
        name = names.load_b
    sch.tensorize(sch.get_loops(copy)[-2], name)


def _in_fragments(
    sch: s_tir.Schedule,
    copy: Any,
    buffer: tuple[str, int],
    shape: tuple[int, int],
    place: Callable[[Any, Any], tuple[Any, Any]],
) -> None:
    """Pieces of ``shape`` as the instructions spread them over the threads of a warp."""
    down, across = shape
    rows, columns = sch.get_loops(copy)[-2:]
    rows, rows_in = sch.split(rows, [None, down])
    columns, columns_in = sch.split(columns, [None, across])
    sch.reorder(rows, columns, rows_in, columns_in)

    def spread(s: Any, r: Any, c: Any) -> list[Any]:
        return [s, r // down, c // across, *place(r % down, c % across)]

    sch.transform_layout(copy, buffer, spread)
