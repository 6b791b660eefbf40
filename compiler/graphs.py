"""CUDA graphs: kernels launched at once, on request and where shapes are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from burnish.compiler.errors import ConfigError

if TYPE_CHECKING:
    from burnish.targets.choose import Target


def with_graphs(wanted: bool, target: Target) -> Target:
    """``target`` whose models record graphs; :class:`ConfigError` where there are none."""
    from burnish.targets.cuda.target import CudaTarget

    if isinstance(target, CudaTarget):
        return replace(target, graphs=wanted)
    if wanted:
        raise ConfigError(
            f"cuda_graphs is for CUDA; the target {target.name!r} launches nothing that could be "
            "recorded so: leave it out"
        )
    return target
