"""Memory of large outputs, given to later calls once a caller has let an earlier result go.

The allocator returns memory above some megabytes to the system, and the system clears each page of
it again at the next call: the 65 MB of logits of a language model took 15 ms so.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence

import numpy as np
import torch

REUSED_BYTES = 1 << 20
"""Smaller outputs come from the allocator, which keeps memory of their size itself."""
KEPT = 2
"""Blocks kept for an output: in ``y = model(x)`` in a loop the last result is still held."""
ALIGNMENT = 64


class OutputMemory:
    """Tensors of one shape and dtype, for one output; not by two threads at once.

    A block is used again when nothing refers to it any more: no tensor, view or NumPy array of it.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        self._shape, self._dtype = tuple(shape), dtype
        self._bytes = math.prod(shape) * dtype.itemsize
        self._blocks: list[_Block] = []

    def tensor(self) -> torch.Tensor:
        """Contiguous, uninitialized."""
        if self._bytes < REUSED_BYTES:
            return torch.empty(self._shape, dtype=self._dtype, device="cpu")
        for block in self._blocks:
            if block.free():
                break
        else:
            if len(self._blocks) == KEPT:
                return torch.empty(self._shape, dtype=self._dtype, device="cpu")
            block = _Block(self._bytes)
            self._blocks.append(block)
        return torch.from_numpy(block.lend()).view(self._dtype).view(self._shape)


class _Block:
    """Memory, and whether the array last lent still lives: a tensor keeps it as its owner."""

    def __init__(self, size: int) -> None:
        memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        self._memory = memory[start : start + size]
        self._lent: weakref.ref[np.ndarray] | None = None

    def free(self) -> bool:
        return self._lent is None or self._lent() is None

    def lend(self) -> np.ndarray:
        lent = self._memory.view()
        self._lent = weakref.ref(lent)
        return lent
