"""Whether an NVIDIA GPU is here, and which."""

from __future__ import annotations

import ctypes
import re
from typing import Any

_ARCH = re.compile(r"sm_(\d{2,3})(a?)")


def device_capability() -> int | str:
    """Compute capability of the first GPU, 90 for 9.0, or why there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "it needs an NVIDIA driver (libcuda.so.1), and there is none"
    code = driver.cuInit(0)
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    code = code or driver.cuDeviceGet(ctypes.byref(device), 0)
    code = code or driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
    code = code or driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    if code:
        return f"it needs an NVIDIA GPU, and the driver finds none (CUDA error {code})"
    return major.value * 10 + minor.value


def why_no_gpu(arches: Any) -> str:
    """Why this machine cannot run a model built for these architectures; empty where it can."""
    listed = arches if isinstance(arches, list) else []
    found = [_ARCH.fullmatch(arch) for arch in listed if isinstance(arch, str)]
    built = [int(match[1]) for match in found if match]
    specific = any(match[2] for match in found if match)
    if not built:
        return "it names no architecture"
    here = device_capability()
    if isinstance(here, str):
        return here
    if here < min(built) or (specific and here not in built):
        return f"it is built for {', '.join(listed)}, and this machine's GPU is an sm_{here}"
    return ""
