"""The one measuring service: timings, peak memory and outputs from isolated processes."""

from burnish.compiler.measure.machine import cores, describe_machine
from burnish.compiler.measure.runners import (
    ArtifactRunner,
    EagerRunner,
    KernelRunner,
    OnnxRuntimeRunner,
    Runner,
)
from burnish.compiler.measure.service import MeasureService
from burnish.compiler.measure.timing import Timing, faster

__all__ = [
    "ArtifactRunner",
    "EagerRunner",
    "KernelRunner",
    "MeasureService",
    "OnnxRuntimeRunner",
    "Runner",
    "Timing",
    "cores",
    "describe_machine",
    "faster",
]
