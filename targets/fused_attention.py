"""Which attention a GPU target computes in one kernel."""

from __future__ import annotations

from collections.abc import Callable

from burnish.targets.attention_form import Sizes
from burnish.targets.choose import Target
from burnish.targets.cuda import attention as cuda_attention
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.opencl import attention as opencl_attention
from burnish.targets.opencl.target import OpenclTarget


def fuses(target: Target) -> Callable[[Sizes], bool]:
    """Whether the target's rule takes attention of given sizes; no CPU's is asked here."""

    def asked(sizes: Sizes) -> bool:
        if isinstance(target, CudaTarget):
            return cuda_attention.fuses(sizes, target)
        return isinstance(target, OpenclTarget) and opencl_attention.fuses(sizes, target)

    return asked
