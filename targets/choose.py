"""A target from its name, whatever kind of device it is."""

from __future__ import annotations

from typing import TypeAlias

from burnish.targets.cuda.target import CudaTarget, parse_cuda
from burnish.targets.target import CpuTarget, parse_target

Target: TypeAlias = CpuTarget | CudaTarget


def choose_target(text: str | Target) -> Target:
    """``cpu``, an ``llvm`` string, or ``cuda[:sm_NN,...]``; a target is returned as it is.

    Raises ``ValueError`` listing the known targets.
    """
    if isinstance(text, CudaTarget):
        return text
    if isinstance(text, str) and text.strip().partition(":")[0] == "cuda":
        return parse_cuda(text)
    return parse_target(text)
