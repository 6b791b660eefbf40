"""Memory of the micro-batches in flight: a ring of equal frames that all stages see.

A frame holds every value of one micro-batch that goes from stage to stage, inputs and results
too, each at its place, aligned. A stage reads and writes there; nothing is copied on the way.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from burnish.runtime.signature import TensorSpec
from burnish.runtime.tensors import ALIGNMENT, numpy_dtype

PAGE = 4096


@dataclass(frozen=True)
class Layout:
    """Where in a frame each value is: name -> first byte, of ``size`` bytes in all."""

    specs: Mapping[str, TensorSpec]
    places: Mapping[str, int]
    size: int


def layout_of(specs: Mapping[str, TensorSpec]) -> Layout:
    """Values one after the other, each aligned; all sizes must be numbers."""
    places: dict[str, int] = {}
    end = 0
    for name, spec in specs.items():
        places[name] = end
        end += -(-bytes_of(spec) // ALIGNMENT) * ALIGNMENT
    return Layout(dict(specs), places, max(PAGE, -(-end // PAGE) * PAGE))


def bytes_of(spec: TensorSpec) -> int:
    """Bytes of a tensor of a known shape."""
    return math.prod(map(int, spec.shape)) * numpy_dtype(spec.dtype).itemsize


class Frames:
    """``count`` frames over a buffer: arrays that share its memory."""

    def __init__(self, layout: Layout, buffer: Any, count: int) -> None:
        self.layout, self.count = layout, count
        self._views: list[dict[str, np.ndarray]] = []
        for frame in range(count):
            views = {}
            for name, spec in layout.specs.items():
                start = frame * layout.size + layout.places[name]
                flat = np.frombuffer(buffer, np.uint8, bytes_of(spec), start)
                dtype = numpy_dtype(spec.dtype)
                views[name] = flat.view(dtype).reshape(tuple(map(int, spec.shape)))
            self._views.append(views)

    def arrays(self, frame: int, names: Sequence[str]) -> list[np.ndarray]:
        """The values of these names in a frame, to read or to write."""
        return [self._views[frame][name] for name in names]


def shared_memory(size: int) -> int:
    """A file descriptor of so many bytes of memory that other processes can map.

    It has no name: whatever becomes of its processes, it goes with the last of them, and nothing
    is left behind (``multiprocessing.shared_memory`` leaves its segments where its owner dies).
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("burnish-frames")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def mapped(descriptor: int, size: int) -> mmap.mmap:
    """That memory in this process."""
    return mmap.mmap(descriptor, size)


__all__ = ["Frames", "Layout", "bytes_of", "layout_of", "mapped", "shared_memory"]
