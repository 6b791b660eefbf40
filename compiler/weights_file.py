"""Weights in the safetensors format, written and read without a second copy in memory.

The format: a little-endian u64, so many bytes of JSON ``{name: {dtype, shape, data_offsets}}``,
then the elements of each tensor, row-major, without gaps.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def parts(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """The bytes of the file, in order; contiguous arrays are handed on as they are.

    Raises ``ValueError`` for a dtype that the format lacks.
    """
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header, end = {}, 0
    for name in order:
        array = arrays[name]
        if array.dtype not in _NAMES:
            raise ValueError(f"the weight {name!r} is {array.dtype}, which safetensors cannot hold")
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in order:
        if arrays[name].nbytes:
            yield np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data


def arrays_in(data: memoryview) -> dict[str, np.ndarray]:
    """The arrays of a file, as views of ``data``; ``ValueError`` if it is damaged."""
    if len(data) < 8:
        raise ValueError("the weights have no header")
    (size,) = struct.unpack("<Q", data[:8])
    if size > len(data) - 8:
        raise ValueError("the header of the weights is longer than their file")
    body = data[8 + size :]
    found = {}
    for name, entry in json.loads(bytes(data[8 : 8 + size])).items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        shape, dtype = tuple(entry["shape"]), DTYPES[entry["dtype"]]
        count = math.prod(shape)
        if not 0 <= start <= end <= len(body) or end - start != count * dtype.itemsize:
            raise ValueError(f"the weight {name!r} lies outside the file")
        found[name] = np.frombuffer(body[start:end], dtype=dtype).reshape(shape)
    return found
