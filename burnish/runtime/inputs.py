"""Inputs handed to a library: zero-copy where memory allows, else one copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm_ffi

from . import tensors


class InputSlot:
    """One input: hands its memory over when it can, else copies it into a buffer kept for it."""

    def __init__(self, dtype: str) -> None:
        self.address = 0
        """Of the buffer; 0 before there is one."""
        self._dtype = dtype
        self._buffer: Any = None
        self._bytes: np.ndarray | None = None

    def take(self, value: np.ndarray) -> Any:
        """A tensor of the same content."""
        if shareable(value) and value.dtype != np.bool_ and value.dtype.isbuiltin == 1:
            return tvm_ffi.from_dlpack(value)
        if self._buffer is None or tuple(map(int, self._buffer.shape)) != value.shape:
            device = tvm_ffi.device("cpu", 0)
            self._buffer = tensors.empty(value.shape, self._dtype, device)
            self.address = tensors.address(self._buffer)
        tensors.fill(self._buffer, np.ascontiguousarray(value))
        return self._buffer

    def bytes_of(self, value: np.ndarray) -> Any:
        """The memory of the content as a tensor of bytes, for a call that knows the shape."""
        if shareable(value):
            return tensors.bytes_of(value)
        if self._bytes is None or self._bytes.nbytes != value.nbytes:
            self._bytes = tensors.aligned((value.nbytes,), np.dtype(np.uint8))
        self._bytes[:] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        return tvm_ffi.from_dlpack(self._bytes)


def shareable(value: np.ndarray) -> bool:
    """Whether kernels can work on the memory itself."""
    flags = value.flags
    return bool(
        flags.c_contiguous and flags.writeable and value.ctypes.data % tensors.ALIGNMENT == 0
    )
