"""Products of two-byte floats on tensor cores: ``C[s, i, j] = sum_k A[s, i, k] B[s, j, k]``.

Matmul, attention's products and convolutions are of this form, the latter with several axes as one
``i`` (batch, height, width) and one ``k`` (window, channels). Sums are float32.

1. A block of threads computes a tile of the output, ``rows x columns``, over ``depth`` of ``k`` at
   a time. Tiles are smaller where the output has too few for the GPU's multiprocessors. What is
   left over of odd sizes is padded with zeros as it is read.
2. Operands go from global to shared memory, some steps (``stages``) ahead, by asynchronous copies
   of 16 bytes where whole ones can be taken. A row of shared memory is 16 bytes longer than its
   content, so that the eight rows that ``ldmatrix`` reads at once lie in different banks.
3. Each warp multiplies 16 x 16 x 16 at a time (``mma.m16n8k16``), its operands read by
   ``ldmatrix`` one step ahead.
4. The sums go to shared memory, and from there through all that follows (bias, activation,
   rounding) to the output, in whole rows.

After the schedules of TVM's tests for ``mma`` and of its dlight; ours differ in the choice of tiles
and in reading ``B`` with either axis last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir.dlight.analysis import get_root_block
from tvm.s_tir.dlight.gpu import matmul as products
from tvm.tirx.analysis import undefined_vars

from burnish.targets.cuda.intrinsics import cuda_intrinsics
from burnish.targets.cuda.target import CudaTarget

DTYPES = ("float16",)
MICRO = 16
_WARP, _VECTOR = 32, 8
_PAD = 8
"""Elements that a row of shared memory is longer than its content."""
_LEAST_DEPTH = 16
"""Of ``k``: shorter sums are not worth a tile."""
_Kind = products.IterKind
_MULTIPROCESSORS = 100
"""Tiles that keep a large GPU busy."""


@dataclass(frozen=True)
class Tile:
    """Sizes of a tile, the warps along its rows and columns, and the steps in flight."""

    rows: int
    columns: int
    depth: int
    warps: tuple[int, int] = (2, 2)
    stages: int = 3

    @property
    def shared_memory(self) -> int:
        """Bytes of a block, at most: operands of every stage, and sums on their way out."""
        operands = (self.rows + self.columns) * (self.depth + _PAD) * 2 * self.stages
        return operands + self.rows * (self.columns + _PAD) * 4

    def count(self, sizes: Sequence[int]) -> int:
        """Tiles of an output of ``batch, rows, columns``."""
        batch, rows, columns = sizes[:3]
        return batch * -(-rows // self.rows) * -(-columns // self.columns)


TILES = (
    Tile(128, 128, 64),
    Tile(128, 128, 32),
    Tile(64, 128, 32),
    Tile(64, 64, 64),
    Tile(32, 32, 64, stages=4),
)
"""By trial on an H100: 4096 x 4096 x 4096 ran at 256 TFLOP/s with the first, 225 with the next."""


def choose_tile(sizes: Sequence[int], shared_memory: int) -> Tile:
    """The largest tile that fits and gives enough of them; else the smallest."""
    for tile in TILES:
        if tile.shared_memory <= shared_memory and tile.count(sizes) >= _MULTIPROCESSORS:
            return tile
    return TILES[-1]


@dataclass(frozen=True)
class _Form:
    """Sizes ``batch, rows, columns, depth``, and whether ``B`` has its columns last."""

    sizes: tuple[int, int, int, int]
    columns_last: bool


def emit(func: tirx.PrimFunc, target: CudaTarget) -> tirx.PrimFunc | None:
    """The kernel laid out, or ``None`` where it is no such product."""
    if target.capability < 80:
        return None
    sch = s_tir.Schedule(func)
    blocks = products.get_reduction_blocks(sch, sch.get_child_blocks(get_root_block(sch)))
    if blocks is None:
        return None
    form = _form(sch.get(blocks[0]))
    if form is None:
        return None
    return _laid_out(sch, blocks[0], form, choose_tile(form.sizes, target.shared_memory))


def _form(block: s_tir.SBlock) -> _Form | None:
    traits = products.detect_iter_traits(block)
    if traits is None or len(block.reads) != 2:
        return None
    dtypes = {str(read.source.dtype) for read in block.reads}
    if len(dtypes) != 1 or dtypes.isdisjoint(DTYPES):
        return None
    if str(block.writes[0].source.dtype) != "float32":
        return None
    every = traits[-1]
    sizes = _sizes(every)
    if sizes is None or sizes[3] < _LEAST_DEPTH:
        return None
    last = set(undefined_vars(block.reads[1].region[-1].min))
    columns = {
        iter_var.var
        for iter_var, trait in zip(block.iter_vars, every, strict=True)
        if trait.kind == _Kind.kIter_J
    }
    return _Form(sizes, bool(last & columns))


def _sizes(traits: Sequence[products.IterTrait]) -> tuple[int, int, int, int] | None:
    """``batch, rows, columns, depth``; ``None`` where one is not a number."""
    found = dict.fromkeys((_Kind.kIter_S, _Kind.kIter_I, _Kind.kIter_J, _Kind.kIter_K), 1)
    for trait in traits:
        if not isinstance(trait.extent, tirx.IntImm):
            return None
        if trait.kind in found:
            found[trait.kind] *= int(trait.extent.value)
    batch, rows, columns, depth = found.values()
    return batch, rows, columns, depth


def _laid_out(sch: s_tir.Schedule, main: Any, form: _Form, tile: Tile) -> tirx.PrimFunc:
    read_a = sch.reindex(main, ("read", 0))
    read_b = sch.reindex(main, ("read", 1))
    write = sch.reindex(main, ("write", 0))
    # Only now are the buffers' axes those of the block, less the ones of extent 1.
    a, b, c, every = products.detect_iter_traits(sch.get(main))
    fused = products.make_iter_fusion_index_map
    rows, cols, depth, outer = _Kind.kIter_I, _Kind.kIter_J, _Kind.kIter_K, _Kind.kIter_S
    b_order = [outer, depth, cols] if form.columns_last else [outer, cols, depth]
    sch.transform_layout(read_a, ("write", 0), fused(a, [outer, rows, depth]))
    sch.transform_layout(read_b, ("write", 0), fused(b, b_order))
    sch.transform_layout(write, ("read", 0), fused(c, [outer, rows, cols]))
    sch.transform_block_layout(main, fused(every, [outer, rows, cols, depth]))
    sch.pad_einsum(main, [1, tile.rows, tile.columns, tile.depth])

    batch, i, j, k = sch.get_loops(main)
    i, i_in = sch.split(i, [None, MICRO])
    j, j_in = sch.split(j, [None, MICRO])
    k, k_in = sch.split(k, [None, MICRO])
    sch.reorder(i, j, k, i_in, j_in, k_in)
    inner, pieces = main, sch.blockize(i_in)
    down, across = tile.warps
    i0, i1, i2 = sch.split(i, [None, down, tile.rows // MICRO // down])
    j0, j1, j2 = sch.split(j, [None, across, tile.columns // MICRO // across])
    k0, k1 = sch.split(k, [None, tile.depth // MICRO])
    sch.reorder(batch, j0, i0, i1, j1, k0, k1, i2, j2)
    place = sch.fuse(batch, j0, i0)
    sch.bind(place, "blockIdx.x")
    sch.bind(i1, "threadIdx.z")
    sch.bind(j1, "threadIdx.y")

    for operand in (0, 1):
        _to_shared(sch, pieces, operand, k0, tile)
    turned = (False, not form.columns_last)
    names = cuda_intrinsics().get_mma_intrin_group(
        load_scope="shared.dyn",
        store_scope="shared.dyn",
        in_dtype="float16",
        out_dtype="float32",
        trans_a=turned[0],
        trans_b=turned[1],
    )
    for operand in (0, 1):
        _to_registers(sch, pieces, operand, k1, names["load_a" if operand == 0 else "load_b"])

    to_output = sch.cache_write(pieces, 0, "shared.dyn")
    sch.storage_align(to_output, 0, axis=-2, factor=16, offset=_PAD)
    from_registers = sch.cache_write(pieces, 0, "warp")
    sch.reverse_compute_at(from_registers, j1)
    sch.reverse_compute_at(to_output, place)
    _in_fragments(sch, from_registers, ("read", 0))
    start = sch.decompose_reduction(pieces, k0)
    start_inner = sch.get_child_blocks(start)[0]
    sch.tensorize(sch.get_loops(start_inner)[-2], names["init"])
    sch.tensorize(sch.get_loops(inner)[-3], names["compute"])
    sch.tensorize(sch.get_loops(from_registers)[-2], names["store"])

    products.auto_inline_consumer_chain(sch, to_output)
    fused = sch.fuse(*sch.get_loops(to_output)[-2:])
    _bind_copy(sch, fused, tile, _VECTOR // 2)

    steps = -(-form.sizes[3] // tile.depth)
    late = min(tile.stages, steps) - 1
    if late:
        # Of a step over k0: two copies, then the pipeline over k1 as its start, middle and end.
        sch.annotate(k0, "software_pipeline_stage", [0, 0, late, late, late])
        sch.annotate(k0, "software_pipeline_order", [0, 1, 2, 3, 4])
        sch.annotate(k0, "software_pipeline_async_stages", [0])
    sch.annotate(k1, "software_pipeline_stage", [0, 0, 1])
    sch.annotate(k1, "software_pipeline_order", [0, 1, 2])
    return sch.mod["main"]


def _to_shared(sch: s_tir.Schedule, block: Any, operand: int, k0: Any, tile: Tile) -> None:
    """Part 2."""
    copy = sch.cache_read(block, operand, "shared.dyn")
    sch.compute_at(copy, k0)
    products.auto_inline_producers(sch, copy)
    sch.storage_align(copy, 0, axis=-2, factor=16, offset=_PAD)
    _bind_copy(sch, sch.fuse(*sch.get_loops(copy)[-2:]), tile, _VECTOR)


def _bind_copy(sch: s_tir.Schedule, loop: Any, tile: Tile, vector: int) -> None:
    """A loop over elements by all threads of a block, ``vector`` neighbours each at a time."""
    down, across = tile.warps
    _, z, y, x, lanes = sch.split(loop, [None, down, across, _WARP, vector])
    sch.bind(z, "threadIdx.z")
    sch.bind(y, "threadIdx.y")
    sch.bind(x, "threadIdx.x")
    sch.vectorize(lanes)


def _to_registers(sch: s_tir.Schedule, block: Any, operand: int, k1: Any, intrinsic: str) -> None:
    """Part 3: an operand's 16 x 16 pieces."""
    copy = sch.cache_read(block, operand, "warp")
    sch.compute_at(copy, k1)
    _in_fragments(sch, copy, ("write", 0))
    sch.tensorize(sch.get_loops(copy)[-2], intrinsic)


def _in_fragments(sch: s_tir.Schedule, copy: Any, buffer: tuple[str, int]) -> None:
    """Pieces of 16 x 16 as the instructions spread them over the threads of a warp."""
    rows, columns = sch.get_loops(copy)[-2:]
    rows, rows_in = sch.split(rows, [None, MICRO])
    columns, columns_in = sch.split(columns, [None, MICRO])
    sch.reorder(rows, columns, rows_in, columns_in)

    def spread(s: Any, r: Any, c: Any) -> list[Any]:
        thread, element = cuda_intrinsics().shared_16x16_to_ldmatrix_32x8_layout(
            r % MICRO, c % MICRO
        )
        return [s, r // MICRO, c // MICRO, thread, element]

    sch.transform_layout(copy, buffer, spread)
