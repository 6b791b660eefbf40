"""OpenCL."""

from __future__ import annotations

import ctypes

from burnish.compiler.doctor.check import Check

REMEDY = "compile for cpu or cuda"


def kernel() -> Check:
    detail = "this version builds for the CPU and for CUDA only"
    try:
        loader = ctypes.CDLL("libOpenCL.so.1")
        count = ctypes.c_uint(0)
        code = loader.clGetPlatformIDs(0, None, ctypes.byref(count))
    except OSError:
        return Check("opencl", "unavailable", f"no libOpenCL.so.1; {detail}", REMEDY)
    found = f"{count.value} platforms listed" if code == 0 else f"no platform (code {code})"
    return Check("opencl", "unavailable", f"{found}, not tried; {detail}", REMEDY)
