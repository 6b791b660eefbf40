"""Weights in the safetensors format, written and read without a second copy in memory.

The format: a little-endian u64, so many bytes of JSON ``{name: {dtype, shape, data_offsets}}``,
then the elements of each tensor, row-major, without gaps.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np

from burnish.runtime import weights

DTYPES = {
    code: np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    for code, (name, _width) in weights.DTYPES.items()
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
    return {name: array_of(weight) for name, weight in weights.weights_in(data).items()}


def array_of(weight: weights.Weight) -> np.ndarray:
    """A weight as an array, a view of the file."""
    dtype = np.dtype(ml_dtypes.bfloat16 if weight.dtype == "bfloat16" else weight.dtype)
    return np.frombuffer(weight.data, dtype=dtype).reshape(weight.shape)
