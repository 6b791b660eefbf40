"""Tensors of TVM, made and read through its global functions alone."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm_ffi

from .errors import InvalidInputError
from .machine import CPU

ALIGNMENT = 64
"""Bytes the kernels' vector loads rely on."""
OBJECT_BYTES = 24
"""``sizeof(TVMFFIObject)``, after which the ``DLTensor`` of a tensor object stands."""


def empty(shape: Sequence[int], dtype: str, device: Any) -> Any:
    """A tensor of TVM's own memory, aligned; its elements are anything."""
    make = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
    return make(tvm_ffi.Shape(tuple(shape)), tvm_ffi.dtype(dtype), device, None)


def filled(
    data: memoryview | np.ndarray, shape: Sequence[int], dtype: str, device: Any = None
) -> Any:
    """A tensor with these bytes, on the CPU or another device."""
    tensor = empty(shape, dtype, tvm_ffi.device("cpu", 0) if device is None else device)
    fill(tensor, data)
    return tensor


def fill(tensor: Any, data: memoryview | np.ndarray) -> None:
    """Copy bytes, row-major, into a tensor; there must be as many."""
    flat = np.frombuffer(data, np.uint8) if isinstance(data, memoryview) else data
    if flat.nbytes:
        copy = tvm_ffi.get_global_func("runtime.TVMTensorCopyFromBytes")
        copy(tensor, _pointer(flat), flat.nbytes)


def _pointer(array: np.ndarray) -> Any:
    import ctypes

    return ctypes.c_void_p(array.ctypes.data)


def read(tensor: Any) -> np.ndarray:
    """The elements: a view where they are on the CPU and NumPy has the dtype, else a copy."""
    dtype = numpy_dtype(str(tensor.dtype))
    here = tensor.device.dlpack_device_type() == CPU
    if here and dtype.isbuiltin == 1 and dtype != np.bool_:
        return np.from_dlpack(tensor)
    array = np.empty(tuple(map(int, tensor.shape)), dtype)
    if array.nbytes:
        copy = tvm_ffi.get_global_func("runtime.TVMTensorCopyToBytes")
        copy(tensor, _pointer(array), array.nbytes)
    return array


def numpy_dtype(name: str) -> np.dtype:
    """NumPy's dtype of this name; of those it lacks, that of ``ml_dtypes``."""
    try:
        return np.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    except (ImportError, AttributeError):
        raise InvalidInputError(
            f"the model takes or returns {name}, which NumPy lacks: pip install ml_dtypes"
        ) from None


def size_of(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a tensor."""
    return math.prod(map(int, shape)) * tvm_ffi.dtype(dtype).itemsize


def aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array of its own memory, aligned; its elements are anything."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(tuple(shape))


def copied(array: np.ndarray) -> Any:
    """A tensor on the CPU with the elements of an array, in memory of its own."""
    content = np.ascontiguousarray(array)
    return filled(content, array.shape, str(array.dtype))


def bytes_of(array: np.ndarray) -> Any:
    """The memory of a contiguous array as a tensor of bytes."""
    return tvm_ffi.from_dlpack(array.reshape(-1).view(np.uint8))


def is_tensor(value: Any) -> bool:
    return isinstance(value, tvm_ffi.Tensor)


def address(tensor: Any) -> int:
    """Where the elements of a tensor start."""
    header = (ctypes.c_uint64 * 6).from_address(tensor.__chandle__() + OBJECT_BYTES)
    return int(header[0] + header[5])
