"""Weights of a file in the safetensors format, without a copy and without NumPy's dtypes."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .jsons import has_keys, listed, parsed, text, whole

DTYPES = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "U16": ("uint16", 2),
    "I16": ("int16", 2),
    "U32": ("uint32", 4),
    "I32": ("int32", 4),
    "U64": ("uint64", 8),
    "I64": ("int64", 8),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F32": ("float32", 4),
    "F64": ("float64", 8),
}
"""The format's name of a dtype -> TVM's, and the bytes of an element."""
LIMIT = 64 * 1024 * 1024
"""Bytes of a header."""


@dataclass(frozen=True)
class Weight:
    """A weight: TVM's name of its dtype, and its elements, row-major."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def weights_in(data: memoryview) -> dict[str, Weight]:
    """The weights of a file, as views of ``data``; ``ValueError`` if it is damaged.

    They must fill the file from the header to its end, without gap or overlap.
    """
    if len(data) < 8:
        raise ValueError("the weights have no header")
    (size,) = struct.unpack("<Q", data[:8])
    if size > len(data) - 8:
        raise ValueError("the header of the weights is longer than their file")
    header = parsed(data[8 : 8 + size], "the header of the weights", LIMIT)
    header.pop("__metadata__", None)
    body = data[8 + size :]
    found, spans = {}, []
    for name, entry in header.items():
        start, end, weight = _weight(name, entry, body)
        found[name] = weight
        spans.append((start, end))
    filled = 0
    for start, end in sorted(spans):
        if start != filled:
            raise ValueError("between two weights is a gap, or they overlap")
        filled = end
    if filled != len(body):
        raise ValueError("the weights do not fill their file")
    return found


def _weight(name: str, entry: Any, body: memoryview) -> tuple[int, int, Weight]:
    what = f"the weight {name!r:.80}"
    values: Mapping[str, Any] = has_keys(entry, what, ("dtype", "shape", "data_offsets"))
    offsets = listed(values["data_offsets"], f"the offsets of {what}")
    code = text(values["dtype"], f"the dtype of {what}")
    if len(offsets) != 2 or code not in DTYPES:
        raise ValueError(f"{what} has a false place or dtype")
    start, end = (whole(offset, f"an offset of {what}") for offset in offsets)
    shape = listed(values["shape"], f"the shape of {what}")
    shape = [whole(n, f"a size of {what}", most=2**63 - 1) for n in shape]
    dtype, width = DTYPES[code]
    if not start <= end <= len(body) or end - start != math.prod(shape) * width:
        raise ValueError(f"{what} lies outside the file")
    return start, end, Weight(dtype, tuple(shape), body[start:end])
