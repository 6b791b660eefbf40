"""Rule for attention in one kernel: on tensor cores, or without them.

Two-byte floats go to tensor cores (:mod:`burnish.targets.cuda.warp_attention`), float32 and what
does not fit there to :mod:`burnish.targets.gpu.attention`. float32 that may be rounded to tf32
is left to separate products, which run on tensor cores.
"""

from __future__ import annotations

from tvm import tirx

from burnish.targets import attention_form
from burnish.targets.attention_form import Sizes
from burnish.targets.cuda import warp_attention
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.gpu import attention as groups
from burnish.targets.gpu.attention import Limits

_LIMITS = Limits(items=256, local_memory=48 * 1024, groups=100)
"""Threads of a block, its shared memory without asking for more, and blocks of a large GPU."""


def fuses(sizes: Sizes, target: CudaTarget) -> bool:
    """Whether the rule takes attention of these sizes."""
    if warp_attention.choose_tile(sizes, target) is not None:
        return True
    if sizes.dtype != "float32" or target.tf32:
        return False
    return groups.choose_block(sizes, _LIMITS) is not None


def emit(
    func: tirx.PrimFunc, target: CudaTarget, *, described: bool = False
) -> tirx.PrimFunc | None:
    """The kernel, or ``None`` for another function.

    ``described`` gives a kernel of tensor cores as one that a CPU runs, each instruction replaced
    by what it does.
    """
    found = attention_form.read(func)
    if found is None or not fuses(found.sizes, target):
        return None
    tile = warp_attention.choose_tile(found.sizes, target)
    if tile is None:
        return groups.emit(func, _LIMITS)
    body = warp_attention.emit(found, tile, target, described=described)
    return func.with_body(body).with_attr("s_tir", True)
