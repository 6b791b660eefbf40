"""Tensors in and out of compiled code: zero-copy where memory allows, else one copy."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import torch
import tvm

ALIGNMENT = 64
"""Bytes the kernels' vector loads rely on."""

_SHARED = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
_NUMPY = frozenset(map(np.dtype, _SHARED))
_TORCH = frozenset(getattr(torch, name) for name in _SHARED)
"""Types that an array and a torch tensor of the same memory can have."""


class InputSlot:
    """One input: hands its memory over when it can, else copies it into a buffer kept for it."""

    def __init__(self) -> None:
        self.address = 0
        """Of the buffer; 0 before there is one."""
        self._buffer: tvm.runtime.Tensor | None = None
        self._view: torch.Tensor | None = None

    def take(self, value: Any) -> Any:
        """A tensor of the same content that TVM takes: a torch tensor itself, or a TVM tensor.

        Memory is shared if it is contiguous and aligned to ``ALIGNMENT`` bytes.
        """
        if isinstance(value, torch.Tensor):
            return self._take_torch(value)
        if isinstance(value, tvm.runtime.Tensor):
            view = torch.from_dlpack(value)
            if view.is_contiguous() and view.data_ptr() % ALIGNMENT == 0:
                return value
            return self._copied(view)
        array = np.asarray(value)
        flags = array.flags
        if flags.c_contiguous and flags.writeable and array.dtype in _NUMPY:
            # By way of torch, which the compiled code takes in the least time.
            return self._take_torch(torch.from_numpy(array))
        buffer = self._sized(tuple(array.shape), str(array.dtype))
        buffer.copyfrom(np.ascontiguousarray(array).reshape(array.shape))
        return buffer

    def _take_torch(self, value: torch.Tensor) -> Any:
        if value.requires_grad:
            value = value.detach()
        if not value.is_cpu:
            value = value.cpu()
        if not value.is_contiguous() or value.is_neg() or value.is_conj():
            value = value.resolve_conj().resolve_neg().contiguous()
        if value.data_ptr() % ALIGNMENT == 0:
            return value
        return self._copied(value)

    def _copied(self, value: torch.Tensor) -> torch.Tensor:
        view = self._view
        if view is None or view.shape != value.shape or view.dtype != value.dtype:
            buffer = self._sized(tuple(value.shape), str(value.dtype).removeprefix("torch."))
            view = self._view = torch.from_dlpack(buffer)
        view.copy_(value)
        return view

    def _sized(self, shape: tuple[int, ...], dtype: str) -> tvm.runtime.Tensor:
        buffer = self._buffer
        if buffer is None or tuple(buffer.shape) != shape or str(buffer.dtype) != dtype:
            buffer = tvm.runtime.empty(shape, dtype)
            self._buffer, self._view = buffer, None
            self.address = address(buffer)
        return buffer


def give(value: Any, kept: Container[int], *, as_torch: bool) -> Any:
    """An output, a torch or a TVM tensor, as the caller's kind of tensor.

    It shares the output's memory, save where that is at one of the ``kept`` addresses: a model
    may return an input or a weight, whose memory the next call reads or writes.
    """
    if as_torch:
        tensor = value if isinstance(value, torch.Tensor) else torch.from_dlpack(value)
        return tensor.clone() if tensor.data_ptr() in kept else tensor
    if not isinstance(value, torch.Tensor) and str(value.dtype) not in _SHARED:
        return value.numpy()
    tensor = value if isinstance(value, torch.Tensor) else torch.from_dlpack(value)
    array = given_array(tensor)
    return array.copy() if tensor.data_ptr() in kept else array


def given_array(value: torch.Tensor) -> np.ndarray:
    """A new torch tensor as an array."""
    if value.dtype in _TORCH:
        return value.numpy()
    return tvm.runtime.from_dlpack(value).numpy()


def address(value: tvm.runtime.Tensor) -> int:
    """Where the elements of a tensor start."""
    return int(torch.from_dlpack(value).data_ptr())


def aligned(array: np.ndarray) -> tvm.runtime.Tensor:
    """A weight as a tensor of its own, aligned."""
    return tvm.runtime.tensor(np.ascontiguousarray(array).reshape(array.shape))
