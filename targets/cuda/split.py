"""Products with a long sum and few tiles, in two kernels: sums in parts, then the sum of the parts.

A GPU has its tiles computed side by side, a tile on a multiprocessor; of a product with fewer tiles
than multiprocessors, as of a network's last layers at batch 1, the rest of the GPU waits.

1. ``k`` is cut into at most 16 parts of equal length, whole rows of 128 bytes, and no shorter than
   16 of those (2,048 bytes): at some 0.4 microseconds each, what a cut saves is more than the
   second kernel's launch. Only where tensor cores would take the smallest tiles: as few parts as
   give enough of the largest tiles that can be enough, which read operands less often; else as many
   as give each multiprocessor a tile. A sum that cannot be cut so is left to the other rules.
2. The first kernel is a product with the parts as its batch, by any of the rules for products; its
   sums of parts, float32 or int32, go to memory of the device's workspace.
3. The second adds the parts, always in the same order, and does all that follows (bias,
   activation, rounding) in registers. No atomics: the result is the same at each run.

Not with CUDA graphs: a graph would keep an address in a workspace that may move. The cut is TVM's
``rfactor``, and the kernel's two halves are laid out as kernels of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import TensorLoad, Var
from tvm.s_tir import SBlock, SBlockRealize
from tvm.s_tir.dlight.analysis import get_root_block
from tvm.s_tir.dlight.gpu import matmul as products
from tvm.tirx import BufferStore, SeqStmt, Stmt

from burnish.targets.cpu.stages import walk
from burnish.targets.cuda import tensor_core
from burnish.targets.cuda.products import sizes_of, takes
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.cuda.tiles import tiles_of

_STEP_BYTES, _STEPS = 128, 16
"""Of ``k``: what a kernel takes at once, and the fewest such steps of a part."""
_PARTS = 16
_PLAIN_TILE = 64
"""Rows and columns of a tile without tensor cores."""
_THREADS = 128
_Layout = Callable[[tirx.PrimFunc, CudaTarget], tirx.PrimFunc | None]


def parts_of(
    sizes: Sequence[int], extent: int, dtype: str, target: CudaTarget, element: int
) -> int:
    """Part 1: into how many parts the sum is cut; 1 where it is not.

    ``sizes`` are ``batch, rows, columns, depth``, ``extent`` of ``depth``'s last axis, whose
    ``element`` has so many bytes.
    """
    step = _STEP_BYTES // element
    most = min(sizes[3] // (step * _STEPS), _PARTS)
    fitting = [n for n in range(2, most + 1) if extent % (n * step) == 0]
    if not takes(dtype, target):
        return _filling(fitting, tiles_of(sizes, _PLAIN_TILE, _PLAIN_TILE), target)
    known = tensor_core.tiles(target)
    if tensor_core.choose_tile(sizes, target) != known[-1]:
        return 1
    for tile in known:
        count = tile.count(sizes)
        if count >= tensor_core.ENOUGH:
            return 1
        wasted = count * tile.rows * tile.columns > 2 * sizes[0] * sizes[1] * sizes[2]
        if wasted or tile.shared_memory > target.shared_memory:
            continue
        for parts in fitting:
            if count * parts >= tensor_core.ENOUGH:
                return parts
    return _filling(fitting, known[-1].count(sizes), target)


def _filling(fitting: Sequence[int], tiles: int, target: CudaTarget) -> int:
    """The most parts that give each multiprocessor a tile at most."""
    return max([n for n in fitting if n * tiles <= target.multiprocessors], default=1)


def rule(layouts: Sequence[_Layout]) -> _Layout:
    """The rule, its first kernel by the first of ``layouts`` that applies."""

    def emit(func: tirx.PrimFunc, target: CudaTarget) -> tirx.PrimFunc | None:
        return _emit(func, target, layouts)

    return emit


def _emit(
    func: tirx.PrimFunc, target: CudaTarget, layouts: Sequence[_Layout]
) -> tirx.PrimFunc | None:
    if target.graphs:
        return None
    sch = s_tir.Schedule(func)
    blocks = products.get_reduction_blocks(sch, sch.get_child_blocks(get_root_block(sch)))
    if blocks is None:
        return None
    main = blocks[0]
    block = sch.get(main)
    traits = products.detect_iter_traits(block)
    sizes = None if traits is None or len(block.reads) != 2 else sizes_of(traits[-1])
    dtypes = {str(read.source.dtype) for read in block.reads}
    if sizes is None or len(dtypes) != 1:
        return None
    loop = _last_of_sum(sch, main)
    if loop is None:
        return None
    dtype = dtypes.pop()
    element = tvm_ffi.dtype(dtype).bits // 8
    extent = int(sch.get(loop).extent.value)
    parts = parts_of(sizes, extent, dtype, target, element)
    if parts == 1:
        return None
    outer, _ = sch.split(loop, [parts, None])
    cut = sch.rfactor(outer, 0)
    # Rules for products take loops in the order of the block's variables.
    sch.reorder(*[loop for loop, _ in _loops(sch, cut)])
    partial = sch.get(cut).writes[0].source
    halves = _cut(sch.mod["main"], partial)
    if halves is None:
        return None
    first = next(filter(None, (layout(halves[0], target) for layout in layouts)), None)
    return None if first is None else _joined(func, first, _summed(halves[1]), partial)


def _loops(sch: s_tir.Schedule, block: Any) -> list[tuple[Any, int]]:
    """The loop that each of a block's variables stands for, with the variable's kind."""
    name = sch.get(block).name_hint
    realizes = walk(sch.mod["main"].body, SBlockRealize)
    realize = next(found for found in realizes if found.block.name_hint == name)
    loops = {sch.get(loop).loop_var: loop for loop in sch.get_loops(block)}
    kinds = [var.iter_type for var in realize.block.iter_vars]
    return [(loops[at], kind) for at, kind in zip(realize.iter_values, kinds, strict=True)]


def _last_of_sum(sch: s_tir.Schedule, main: Any) -> Any:
    """The innermost loop over terms; ``None`` where its extent is not known."""
    terms = [loop for loop, kind in _loops(sch, main) if kind == tirx.IterVar.CommReduce]
    if not terms or not isinstance(sch.get(terms[-1]).extent, tirx.IntImm):
        return None
    return terms[-1]


def _touched(stmt: Stmt) -> tuple[set[Var], set[Var]]:
    """Buffers read and written."""
    read = {load.source for load in walk(stmt, TensorLoad)}
    return read, {store.buffer for store in walk(stmt, BufferStore)}


def _cut(func: tirx.PrimFunc, partial: Var) -> tuple[tirx.PrimFunc, tirx.PrimFunc] | None:
    """What computes ``partial`` and what follows, as functions; ``None`` where the latter reads
    more of the former than ``partial``."""
    root = func.body.block
    stages = list(root.body) if isinstance(root.body, SeqStmt) else [root.body]
    at = next(n for n, stage in enumerate(stages) if partial in _touched(stage)[1]) + 1
    made = []
    for half in (stages[:at], stages[at:]):
        read, written = (
            set[Var]().union(*found) for found in zip(*map(_touched, half), strict=True)
        )
        owned = [b for b in root.alloc_buffers if b in written and b != partial]
        params = [p for p in func.params if p in read | written]
        foreign = read - written - set(params) - {partial}
        if foreign:
            return None
        body = SeqStmt(half) if len(half) > 1 else half[0]
        made.append(tirx.PrimFunc([*params, partial], _root(body, owned)))
    return made[0], made[1]


def _root(body: Stmt, owned: Sequence[Var]) -> Stmt:
    block = SBlock([], [], [], "root", body, alloc_buffers=list(owned))
    return SBlockRealize([], True, block)


def _summed(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Part 3: the second kernel, a thread an element."""
    sch = s_tir.Schedule(func)
    total, *followers = sch.get_child_blocks(get_root_block(sch))
    for block in followers[:-1]:
        sch.compute_inline(block)
    last = followers[-1] if followers else total
    loops = _loops(sch, last)
    spatial = [loop for loop, kind in loops if kind == tirx.IterVar.DataPar]
    sch.reorder(*spatial, *[loop for loop, kind in loops if kind == tirx.IterVar.CommReduce])
    place, thread = sch.split(sch.fuse(*spatial), [None, _THREADS])
    sch.bind(place, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    if followers:
        sch.compute_at(total, thread)
        sch.set_scope(total, 0, "local")
    return sch.mod["main"]


def _joined(
    func: tirx.PrimFunc, first: tirx.PrimFunc, second: tirx.PrimFunc, partial: Var
) -> tirx.PrimFunc:
    """Both kernels, one after the other, as ``func``."""
    roots = [half.body.block for half in (first, second)]
    owned = [buffer for root in roots for buffer in root.alloc_buffers]
    return func.with_body(_root(SeqStmt([root.body for root in roots]), [*owned, partial]))
