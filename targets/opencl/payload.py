"""An OpenCL module's bytes from kernels written by hand; the layout is in ``payload.h``."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi


@dataclass(frozen=True)
class Kernel:
    """OpenCL C of one kernel, its parameters' dtypes (``handle`` is a buffer) and launch tags."""

    name: str
    source: str
    arguments: Sequence[str]
    tags: Sequence[str] = ("blockIdx.x", "threadIdx.x")


def write(kernels: Sequence[Kernel], form: str = "cl") -> bytes:
    """The bytes of a module with these kernels, as TVM stores it in a library."""
    parts = [_text(form), struct.pack("<Q", len(kernels))]
    for kernel in kernels:
        parts += [_text(kernel.name), _text(kernel.name), struct.pack("<Q", len(kernel.arguments))]
        for name in kernel.arguments:
            dtype = tvm_ffi.dtype(name)
            parts.append(struct.pack("<BBH", dtype.type_code, dtype.bits, dtype.lanes))
        parts.append(struct.pack("<Q", len(kernel.tags)))
        parts += [_text(tag) for tag in kernel.tags]
        parts.append(struct.pack("<Q", 0))
    code = "".join(f"// Function: {kernel.name}\n{kernel.source}\n" for kernel in kernels)
    return b"".join([*parts, _text(code)])


def load(content: bytes) -> Any:
    """The module in these bytes; call ``runtime.ensure`` first. ``ValueError`` if it is damaged."""
    return tvm_ffi.get_global_func("ffi.Module.load_from_bytes.opencl")(content)


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()
