"""Rule for attention in one kernel, within the limits of an OpenCL device."""

from __future__ import annotations

from tvm import tirx

from burnish.targets.attention_form import Sizes
from burnish.targets.gpu import attention as groups
from burnish.targets.gpu.attention import Limits
from burnish.targets.opencl.target import OpenclTarget

_DTYPES = ("float32", "float16")
_GROUPS = 16
"""Work groups that keep a small device busy."""


def fuses(sizes: Sizes, target: OpenclTarget) -> bool:
    """Whether the rule takes attention of these sizes."""
    return sizes.dtype in _DTYPES and (groups.choose_block(sizes, _limits(target)) is not None)


def emit(func: tirx.PrimFunc, target: OpenclTarget) -> tirx.PrimFunc | None:
    """The kernel, or ``None`` for another function."""
    return groups.emit(func, _limits(target))


def _limits(target: OpenclTarget) -> Limits:
    """Local memory is less what :func:`burnish.targets.opencl.limits.fits` sets aside."""
    memory = target.local_memory - 8 * target.work_group
    return Limits(target.work_group, memory, _GROUPS)
