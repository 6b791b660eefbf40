"""Weights in files beside the model that are too many for one protobuf message, which holds 2 GB.

They stay in their files: a tensor then names its file by an absolute path, and is mapped into
memory where its values are read. Only files that were checked when the model was loaded are read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

from burnish.compiler.errors import ImportModelError

LEAST, SMALL = 2**30, 2**20
"""Bytes of external data from which on it stays outside, and of a tensor that never does."""

_CHECKED: set[str] = set()


def stays_outside(tensor: TensorProto) -> bool:
    """Whether the tensor's values are in a file that this process has checked."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return False
    return _entries(tensor).get("location", "") in _CHECKED


def leave_outside(tensor: TensorProto, file: Path) -> bool:
    """Name the checked ``file`` by its whole path; False for a small tensor, left as it is.

    Raises :class:`ImportModelError` where the file is too short for the tensor.
    """
    size = _size(tensor)
    if size < SMALL:
        return False
    offset = int(_entries(tensor).get("offset", 0))
    length = int(_entries(tensor).get("length", size))
    if length != size or offset < 0 or offset + size > file.stat().st_size:
        raise ImportModelError(
            f"the weight {tensor.name!r} takes {size} bytes; {file.name} has {length} for it from "
            f"{offset} on, and {file.stat().st_size} in all"
        )
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = str(file)
    _CHECKED.add(str(file))
    return True


def values(tensor: TensorProto) -> np.ndarray:
    """The values of a tensor that stays outside, mapped: memory is taken as they are read."""
    entries = _entries(tensor)
    return np.memmap(
        entries["location"], _dtype(tensor), "r", int(entries.get("offset", 0)), tuple(tensor.dims)
    )


def without_outside(model: ModelProto) -> ModelProto:
    """A copy whose weights that stay outside are inputs, for ONNX's checker."""
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    declared = {value.name for value in graph.input}
    for tensor in [t for t in graph.initializer if stays_outside(t)]:
        if tensor.name not in declared:
            kind = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            graph.input.append(kind)
        graph.initializer.remove(tensor)
    return copy


def tensor_bytes(tensor: TensorProto) -> int:
    """What a file holds for the tensor, as it says itself."""
    return int(_entries(tensor).get("length", 0)) or _size(tensor)


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _dtype(tensor: TensorProto) -> np.dtype:
    return np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))


def _size(tensor: TensorProto) -> int:
    """Bytes; 0 where elements are below a byte, which are never mapped."""
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    whole = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64)
    if tensor.data_type not in (*kinds, *whole) or any(n < 0 for n in tensor.dims):
        return 0
    count = 1
    for n in tensor.dims:
        count *= int(n)
    return count * _dtype(tensor).itemsize
