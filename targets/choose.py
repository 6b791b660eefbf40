"""A target from its name, whatever kind of device it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from burnish.targets.cuda.target import CudaTarget, parse_cuda
from burnish.targets.opencl.target import OpenclTarget, parse_opencl
from burnish.targets.target import CpuTarget, parse_target

Target: TypeAlias = CpuTarget | CudaTarget | OpenclTarget

_PARSERS: dict[str, Callable[[str], Target]] = {"cuda": parse_cuda, "opencl": parse_opencl}


def choose_target(text: str | Target) -> Target:
    """``cpu``, an ``llvm`` string, ``cuda[:sm_NN,...]`` or ``opencl[:DEVICE]``.

    A target is returned as it is. Raises ``ValueError`` listing the known targets.
    """
    if isinstance(text, CudaTarget | OpenclTarget):
        return text
    if isinstance(text, str):
        parse = _PARSERS.get(text.strip().partition(":")[0])
        if parse is not None:
            return parse(text)
    return parse_target(text)
