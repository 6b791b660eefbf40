"""Machine code for several architectures, and PTX, in one image that the driver chooses from."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

from burnish.targets.cuda.libraries import library
from burnish.targets.cuda.nvrtc import Code
from burnish.targets.cuda.target import capability

LIBRARY = "libnvfatbin.so.13"
MAGIC = b"\x50\xed\x55\xba"
_CUBIN, _SPECIFIC = 2, 1 << 20


def pack(codes: Sequence[Code], name: str) -> bytes:
    """An image with the machine code of each, and the PTX of the newest."""
    nvfatbin = library(LIBRARY)
    handle = ctypes.c_void_p()
    options = (ctypes.c_char_p * 1)(b"-64")
    _check(nvfatbin.nvFatbinCreate(ctypes.byref(handle), options, ctypes.c_size_t(1)))
    try:
        for code in codes:
            number = _number(code.arch)
            size = ctypes.c_size_t(len(code.cubin))
            _check(nvfatbin.nvFatbinAddCubin(handle, code.cubin, size, number, name.encode()))
        newest = max(codes, key=lambda code: capability(code.arch))
        ptx = newest.ptx.rstrip(b"\0") + b"\0"
        size, number = ctypes.c_size_t(len(ptx)), _number(newest.arch)
        _check(nvfatbin.nvFatbinAddPTX(handle, ptx, size, number, name.encode(), b""))
        total = ctypes.c_size_t()
        _check(nvfatbin.nvFatbinSize(handle, ctypes.byref(total)))
        image = ctypes.create_string_buffer(total.value)
        _check(nvfatbin.nvFatbinGet(handle, image))
        return image.raw
    finally:
        nvfatbin.nvFatbinDestroy(ctypes.byref(handle))


def machine_codes(image: bytes) -> dict[str, bytes]:
    """Architecture -> the cubin for it, of an image or of a file that has one image within it.

    An image is a head (magic, 2 bytes version, 2 bytes its size, 8 bytes of all that follows) and
    entries, each with a head of its own: kind (2 bytes), at 4 the head's size, at 8 (8 bytes) the
    size of what follows it, at 28 the architecture's number, at 40 (8 bytes) flags, of which one
    says that the code is for that architecture alone. ``ValueError`` where there is none.
    """
    start = image.find(MAGIC)
    if start < 0:
        raise ValueError("no image of machine code for GPUs")
    head, size = struct.unpack_from("<HQ", image, start + 6)
    at, found = start + head, {}
    end = at + size
    while at < end:
        (kind,) = struct.unpack_from("<H", image, at)
        skip, size = struct.unpack_from("<IQ", image, at + 4)
        (number,) = struct.unpack_from("<I", image, at + 28)
        (flags,) = struct.unpack_from("<Q", image, at + 40)
        if kind == _CUBIN:
            arch = f"sm_{number}{'a' if flags & _SPECIFIC else ''}"
            found[arch] = image[at + skip : at + skip + size]
        at += skip + size
    return found


def _number(arch: str) -> bytes:
    """``sm_90a`` -> ``90a``."""
    return arch.removeprefix("sm_").encode()


def _check(status: int) -> None:
    if status != 0:
        nvfatbin = library(LIBRARY)
        nvfatbin.nvFatbinGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"nvFatbin: {nvfatbin.nvFatbinGetErrorString(status).decode()}")
