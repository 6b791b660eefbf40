"""Machine code for several architectures, and PTX, in one image that the driver chooses from."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from burnish.targets.cuda.libraries import library
from burnish.targets.cuda.nvrtc import Code
from burnish.targets.cuda.target import capability

LIBRARY = "libnvfatbin.so.13"


def pack(codes: Sequence[Code], name: str) -> bytes:
    """An image with the machine code of each, and the PTX of the newest."""
    nvfatbin = library(LIBRARY)
    handle = ctypes.c_void_p()
    options = (ctypes.c_char_p * 1)(b"-64")
    _check(nvfatbin.nvFatbinCreate(ctypes.byref(handle), options, ctypes.c_size_t(1)))
    try:
        for code in codes:
            number = str(capability(code.arch)).encode()
            size = ctypes.c_size_t(len(code.cubin))
            _check(nvfatbin.nvFatbinAddCubin(handle, code.cubin, size, number, name.encode()))
        newest = max(codes, key=lambda code: capability(code.arch))
        ptx = newest.ptx.rstrip(b"\0") + b"\0"
        size, number = ctypes.c_size_t(len(ptx)), str(capability(newest.arch)).encode()
        _check(nvfatbin.nvFatbinAddPTX(handle, ptx, size, number, name.encode(), b""))
        total = ctypes.c_size_t()
        _check(nvfatbin.nvFatbinSize(handle, ctypes.byref(total)))
        image = ctypes.create_string_buffer(total.value)
        _check(nvfatbin.nvFatbinGet(handle, image))
        return image.raw
    finally:
        nvfatbin.nvFatbinDestroy(ctypes.byref(handle))


def _check(status: int) -> None:
    if status != 0:
        nvfatbin = library(LIBRARY)
        nvfatbin.nvFatbinGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"nvFatbin: {nvfatbin.nvFatbinGetErrorString(status).decode()}")
