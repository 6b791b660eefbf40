"""Tensors in and out of compiled code: zero-copy where memory allows, else one copy."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import torch
import tvm

FOREIGN = ("bfloat16", "float8", "float4")
"""Types that NumPy has from ml_dtypes only, and does not exchange by DLPack."""

ALIGNMENT = 64
"""Bytes the kernels' vector loads rely on."""


class InputSlot:
    """One input: hands its memory over when it can, else copies it into a buffer kept for it."""

    def __init__(self) -> None:
        self.address = 0
        """Of the buffer; 0 before there is one."""
        self._buffer: tvm.runtime.Tensor | None = None

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
        if (
            array.flags.c_contiguous
            and array.flags.writeable
            and array.ctypes.data % ALIGNMENT == 0
            and array.dtype != np.bool_
            and array.dtype.isbuiltin == 1  # NumPy exchanges no bfloat16 and no 8-bit floats
        ):
            return tvm.runtime.from_dlpack(array)
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

    def _copied(self, value: torch.Tensor) -> tvm.runtime.Tensor:
        buffer = self._sized(tuple(value.shape), str(value.dtype).removeprefix("torch."))
        torch.from_dlpack(buffer).copy_(value)
        return buffer

    def _sized(self, shape: tuple[int, ...], dtype: str) -> tvm.runtime.Tensor:
        buffer = self._buffer
        if buffer is None or tuple(buffer.shape) != shape or str(buffer.dtype) != dtype:
            buffer = tvm.runtime.empty(shape, dtype)
            self._buffer = buffer
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
    if str(value.dtype) == "bool" or str(value.dtype).startswith(FOREIGN):
        return value.numpy()
    array = np.from_dlpack(value)
    return array.copy() if array.ctypes.data in kept else array


def given_array(value: torch.Tensor) -> np.ndarray:
    """A new torch tensor as an array."""
    if str(value.dtype).removeprefix("torch.").startswith(FOREIGN):
        return tvm.runtime.from_dlpack(value).numpy()
    return value.numpy()


def address(value: tvm.runtime.Tensor) -> int:
    """Where the elements of a tensor start."""
    return int(torch.from_dlpack(value).data_ptr())


def aligned(array: np.ndarray) -> tvm.runtime.Tensor:
    """A weight as a tensor of its own, aligned."""
    return tvm.runtime.tensor(np.ascontiguousarray(array).reshape(array.shape))
