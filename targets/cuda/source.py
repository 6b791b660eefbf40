"""CUDA C++ as TVM writes it, made such that it compiles."""

from __future__ import annotations

import re

_ZEROS = re.compile(r"make_int4\((?:\(signed char\)0(?:, )?){16}\)")
"""Sixteen int8 zeros: written as so many arguments of what takes four."""


_SHARED = re.compile(r"extern __shared__ __align__\(\d+\)")
_ATOM = 1024
"""Bytes that shared memory is aligned by where warp groups multiply from it."""


def prepared(source: str) -> str:
    """``source`` with what TVM writes wrongly mended."""
    source = _ZEROS.sub("make_int4(0, 0, 0, 0)", source)
    if "wgmma" in source:
        source = _SHARED.sub(f"extern __shared__ __align__({_ATOM})", source)
    return source
