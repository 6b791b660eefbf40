"""CUDA C++ to machine code, by NVIDIA's run-time compiler, with no GPU and no host compiler.

Every option is stated here: the architecture, and exact arithmetic (no ``--use_fast_math``, which
TVM's own compile step turns on: subnormals kept, division and square root rounded as IEEE 754
says). Products and sums of one expression may become one fused multiply-add, as ``nvcc`` does.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from burnish.targets.cuda.libraries import library, toolkit

LIBRARY = "libnvrtc.so.13"
OPTIONS = (
    "--std=c++17",
    "--ftz=false",
    "--prec-div=true",
    "--prec-sqrt=true",
    "--fmad=true",
    "--device-as-default-execution-space",
    "--no-source-include",
)


class KernelError(RuntimeError):
    """A kernel that does not compile; carries the compiler's log and the lines it speaks of."""


@dataclass(frozen=True)
class Code:
    """Machine code for one architecture, the PTX it was made from, and what the compiler said."""

    arch: str
    cubin: bytes
    ptx: bytes
    log: str = ""


def version() -> tuple[int, int]:
    """Of the compiler: (13, 0)."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library(LIBRARY).nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def compile_source(source: str, arch: str, name: str = "kernel") -> Code:
    """``source`` for ``arch`` (``sm_90``); :class:`KernelError` where it does not compile."""
    nvrtc = library(LIBRARY)
    program = ctypes.c_void_p()
    _check(
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), f"{name}.cu".encode(), 0, None, None
        )
    )
    try:
        include = toolkit() / "include"
        options = [
            f"--gpu-architecture={arch}",
            *OPTIONS,
            f"--include-path={include}",
            f"--include-path={include / 'cccl'}",
            f"--include-path={include / 'crt'}",
        ]
        given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        status = nvrtc.nvrtcCompileProgram(program, len(options), given)
        log = _read(program, "nvrtcGetProgramLog").decode(errors="replace").rstrip("\0\n")
        if status != 0:
            raise KernelError(f"{name} does not compile for {arch}:\n{log}")
        return Code(arch, _read(program, "nvrtcGetCUBIN"), _read(program, "nvrtcGetPTX"), log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(program: ctypes.c_void_p, call: str) -> bytes:
    """What ``call`` gives, whose size ``call + "Size"`` gives."""
    nvrtc = library(LIBRARY)
    size = ctypes.c_size_t()
    _check(getattr(nvrtc, f"{call}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(max(1, size.value))
    _check(getattr(nvrtc, call)(program, buffer))
    return buffer.raw[: size.value]


def _check(status: int) -> None:
    if status != 0:
        nvrtc = library(LIBRARY)
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC: {nvrtc.nvrtcGetErrorString(status).decode()}")
