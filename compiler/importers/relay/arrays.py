"""Arrays in Relay files: TVM's array blob, in base64 or in a parameter file.

Declared sizes are held against the bytes at hand before anything is allocated.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from burnish.compiler.importers.relay.graph import RelayError

ARRAY_MAGIC = 0xDD5E40F096B4A13F
PARAMS_MAGIC = 0xF7E58D4F05049CB7
INT, UINT, FLOAT, BFLOAT, BOOL = 0, 1, 2, 4, 6
MAX_RANK = 32


class Bytes:
    """Bytes read from the front; what is beyond the end is an error that names ``what``."""

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        self.data, self.what, self.at = memoryview(data), what, 0

    def take(self, count: int) -> memoryview:
        if count < 0 or count > len(self.data) - self.at:
            raise RelayError(
                f"{self.what} is truncated: {count} bytes are declared at byte {self.at}, "
                f"{len(self.data) - self.at} are there"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        return int(struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0])


def read_array(source: Bytes) -> np.ndarray:
    """The array whose blob begins here; a copy-free view of the bytes."""
    what = source.what
    if source.number("Q") != ARRAY_MAGIC:
        raise RelayError(f"{what} holds no TVM array (its first 8 bytes are others)")
    source.take(8)
    source.take(8)
    rank = source.number("i")
    dtype = _dtype(source.number("B"), source.number("B"), source.number("H"), what)
    if not 0 <= rank <= MAX_RANK:
        raise RelayError(f"{what} declares an array of rank {rank}")
    shape = tuple(source.number("q") for _ in range(rank))
    if any(n < 0 for n in shape):
        raise RelayError(f"{what} declares an array of shape {shape}")
    declared, needed = source.number("q"), math.prod(shape) * dtype.itemsize
    if declared != needed:
        raise RelayError(
            f"{what}: {declared} bytes are declared for an array of shape {shape} and dtype "
            f"{dtype}, which has {needed}"
        )
    return np.frombuffer(source.take(declared), dtype).reshape(shape)


def _dtype(code: int, bits: int, lanes: int, what: str) -> np.dtype:
    known = {
        **{(INT, n): f"int{n}" for n in (8, 16, 32, 64)},
        **{(UINT, n): f"uint{n}" for n in (8, 16, 32, 64)},
        **{(FLOAT, n): f"float{n}" for n in (16, 32, 64)},
        (UINT, 1): "bool",
        (BOOL, 8): "bool",
    }
    if (code, bits, lanes) == (BFLOAT, 16, 1):
        return np.dtype(ml_dtypes.bfloat16)
    if lanes != 1 or (code, bits) not in known:
        raise RelayError(
            f"{what} has an array of dtype code {code}, {bits} bits, {lanes} lanes, which is not "
            "supported: store it as a NumPy dtype or bfloat16"
        )
    return np.dtype(known[code, bits])


def decode_array(text: object, what: str) -> np.ndarray:
    """An array from base64."""
    if not isinstance(text, str):
        raise RelayError(f"{what} must be base64 text, got {type(text).__name__}")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RelayError(f"{what} is no valid base64, it may be truncated: {error}") from None
    source = Bytes(data, what)
    array = read_array(source)
    if source.at != len(data):
        raise RelayError(f"{what} has {len(data) - source.at} bytes after its array")
    return array


def read_params(data: bytes, what: str = "the parameter file") -> dict[str, np.ndarray]:
    """Name -> array of a file that ``relay.save_param_dict`` wrote."""
    source = Bytes(data, what)
    if source.number("Q") != PARAMS_MAGIC:
        raise RelayError(
            f"{what} was not written by relay.save_param_dict (its first 8 bytes are others)"
        )
    source.take(8)
    names = []
    for _ in range(_count(source, 8)):
        raw = bytes(source.take(source.number("Q")))
        try:
            names.append(raw.decode())
        except UnicodeDecodeError:
            raise RelayError(f"{what} has a name that is no UTF-8: {raw[:40]!r}") from None
    count = _count(source, 40)
    if count != len(names):
        raise RelayError(f"{what} has {len(names)} names and {count} arrays")
    return {name: read_array(source) for name in names}


def _count(source: Bytes, least: int) -> int:
    """A count of items of ``least`` bytes or more each."""
    count = source.number("Q")
    if count * least > len(source.data) - source.at:
        raise RelayError(
            f"{source.what} is truncated: {count} items are declared at byte {source.at}, "
            f"{len(source.data) - source.at} bytes are there"
        )
    return count


def params_as_arrays(params: Mapping[str, object]) -> dict[str, np.ndarray]:
    """Parameters given in Python: anything NumPy takes, TVM's tensors too."""
    found = {}
    for name, value in params.items():
        array = value.numpy() if hasattr(value, "numpy") else value
        found[str(name)] = np.asarray(array)
    return found
