"""What layouts of products on tensor cores share: how many tiles there are, copies, and the way of
sums out through shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import s_tir
from tvm.s_tir.dlight.gpu import matmul as products

from burnish.targets.cuda.fragments import WARP

SUMS_PAD = 8
"""Sums that a row of them is longer than its content in shared memory: rows that a warp stores at
once lie in different banks."""
_OUT = 4
"""Neighbours that a thread takes of them."""


def tiles_of(sizes: Sequence[int], rows: int, columns: int) -> int:
    """Tiles of ``rows x columns`` of an output of ``batch, rows, columns``."""
    return sizes[0] * -(-sizes[1] // rows) * -(-sizes[2] // columns)


def bind_copy(sch: s_tir.Schedule, copy: Any, warps: tuple[int, int], vector: int) -> None:
    """The elements of a tile by all threads of a block, ``vector`` neighbours each at a time."""
    down, across = warps
    loop = sch.fuse(*sch.get_loops(copy)[-2:])
    _, z, y, x, lanes = sch.split(loop, [None, down, across, WARP, vector])
    sch.bind(z, "threadIdx.z")
    sch.bind(y, "threadIdx.y")
    sch.bind(x, "threadIdx.x")
    sch.vectorize(lanes)


def store_sums(sch: s_tir.Schedule, from_registers: Any, intrinsic: str) -> None:
    """The block ``from_registers`` as the intrinsic that stores sums to shared memory, in rows of
    which each is :data:`SUMS_PAD` longer than its content."""
    stored = f"{sch.get(from_registers).name_hint}_o"
    sch.tensorize(sch.get_loops(from_registers)[-2], intrinsic)
    # Only now: an intrinsic keeps no notes of the block that it stands for.
    sch.storage_align(sch.get_sblock(stored), 0, axis=-2, factor=2 * SUMS_PAD, offset=SUMS_PAD)


def copy_out(sch: s_tir.Schedule, to_output: Any, warps: tuple[int, int]) -> None:
    """Sums from shared memory through all that follows to the output, in whole rows."""
    products.auto_inline_consumer_chain(sch, to_output)
    bind_copy(sch, to_output, warps, _OUT)


__all__ = ["SUMS_PAD", "bind_copy", "copy_out", "store_sums", "tiles_of"]
