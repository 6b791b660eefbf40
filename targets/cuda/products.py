"""Kernels that are products: ``C[s, i, j] = sum_k A[s, i, k] B[s, j, k]``, and then some.

Matmul, attention's products and convolutions are of this form, the latter with several axes as one
``i`` (batch, height, width) and one ``k`` (window, channels). Operands and sums on tensor cores:

==============  ======  =========================================================================
float16         float32 from sm_75 on
bfloat16        float32 from sm_80 on
int8            int32   from sm_75 on
float32 (tf32)  float32 from sm_80 on, where the target allows it: the last 13 bits are dropped
==============  ======  =========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir.dlight.analysis import get_root_block
from tvm.s_tir.dlight.gpu import matmul as products
from tvm.tirx.analysis import undefined_vars

from burnish.targets.cuda.fragments import Matrix
from burnish.targets.cuda.target import CudaTarget

_SINCE = {"float16": 75, "int8": 75, "bfloat16": 80, "float32": 80}
_LEAST_DEPTH = 16
"""Of ``k``: shorter sums are not worth a tile."""
_Kind = products.IterKind


@dataclass(frozen=True)
class Form:
    """Sizes ``batch, rows, columns, depth``, what is multiplied, whether ``B`` has its columns
    last in shared memory, how many elements of each operand are copied at once, and whether the
    rows of both are whole 16 bytes in memory."""

    sizes: tuple[int, int, int, int]
    matrix: Matrix
    columns_last: bool
    vectors: tuple[int, int]
    aligned: bool


def takes(dtype: str, target: CudaTarget) -> bool:
    """Whether products of a type may run on tensor cores."""
    narrow = dtype != "float32" or target.tf32
    return narrow and target.capability >= _SINCE.get(dtype, 1000)


def find(sch: s_tir.Schedule, target: CudaTarget) -> tuple[Any, Form] | None:
    """The block of the product in a kernel, and its form; ``None`` where it is no such product."""
    blocks = products.get_reduction_blocks(sch, sch.get_child_blocks(get_root_block(sch)))
    if blocks is None:
        return None
    form = _form(sch.get(blocks[0]), target)
    return None if form is None else (blocks[0], form)


def arrange(sch: s_tir.Schedule, main: Any, form: Form, whole: tuple[int, int, int]) -> None:
    """The block as loops ``batch, rows, columns, depth``, padded to multiples of ``whole``; its
    operands read, and its result written, by blocks of their own."""
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
    sch.pad_einsum(main, [1, *whole])


def _form(block: s_tir.SBlock, target: CudaTarget) -> Form | None:
    traits = products.detect_iter_traits(block)
    if traits is None or len(block.reads) != 2:
        return None
    dtypes = {str(read.source.dtype) for read in block.reads}
    matrix = Matrix(dtypes.pop(), target.capability)
    if dtypes or not takes(matrix.dtype, target):
        return None
    if str(block.writes[0].source.dtype) != matrix.sums:
        return None
    every = traits[-1]
    sizes = sizes_of(every)
    if sizes is None or sizes[3] < _LEAST_DEPTH:
        return None
    deep = _variables(block, every, _Kind.kIter_K)
    last = set(undefined_vars(block.reads[1].region[-1].min))
    columns_last = matrix.turns and bool(last & _variables(block, every, _Kind.kIter_J))
    vectors = [_vector(read, deep, matrix) for read in block.reads]
    aligned = all(_whole(read, matrix) for read in block.reads)
    return Form(sizes, matrix, columns_last, (vectors[0], vectors[1]), aligned)


def _variables(block: s_tir.SBlock, every: Sequence[Any], kind: Any) -> set[tirx.Var]:
    return {v.var for v, t in zip(block.iter_vars, every, strict=True) if t.kind == kind}


def _vector(read: Any, deep: set[tirx.Var], matrix: Matrix) -> int:
    """Elements copied at once: 16 bytes; of int8, for which TVM has no vectors of 16 indices, only
    where they are neighbours in memory."""
    if _whole(read, matrix) and set(undefined_vars(read.region[-1].min)) <= deep:
        return matrix.vector
    return min(matrix.vector, 8 if matrix.bytes > 1 else 4)


def _whole(read: Any, matrix: Matrix) -> bool:
    """Whether a row is a number of whole 16 bytes."""
    extent = read.source.shape[-1]
    return isinstance(extent, tirx.IntImm) and int(extent.value) % matrix.vector == 0


def sizes_of(traits: Sequence[products.IterTrait]) -> tuple[int, int, int, int] | None:
    """``batch, rows, columns, depth``; ``None`` where one is not a number."""
    found = dict.fromkeys((_Kind.kIter_S, _Kind.kIter_I, _Kind.kIter_J, _Kind.kIter_K), 1)
    for trait in traits:
        if not isinstance(trait.extent, tirx.IntImm):
            return None
        if trait.kind in found:
            found[trait.kind] *= int(trait.extent.value)
    batch, rows, columns, depth = found.values()
    return batch, rows, columns, depth
