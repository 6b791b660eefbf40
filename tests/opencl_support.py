"""What tests of OpenCL share: the device to run on, and clean folders for what is cached."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import tvm

from burnish.targets.opencl import payload, runtime
from support import require

# PoCL keeps compiled kernels too; the user's own are neither read nor written by tests.
_folder = tempfile.TemporaryDirectory(prefix="burnish-test-pocl-")
os.environ.setdefault("POCL_CACHE_DIR", _folder.name)


@functools.cache
def _why_not() -> str:
    return runtime.why_not()


def require_device() -> runtime.Device:
    """The first OpenCL device, or a skip (a failure under ``BURNISH_CI=1``)."""
    why = _why_not()
    require(not why, why)
    return runtime.devices()[0]


def kernel(body: str, *parameters: tuple[str, str], name: str = "k") -> payload.Kernel:
    """A kernel of ``body`` with parameters ``(dtype or "handle", C declaration)``."""
    listed = ", ".join(declared for _, declared in parameters)
    source = f"__kernel void {name}({listed}) {{ {body} }}"
    return payload.Kernel(name, source, [dtype for dtype, _ in parameters])


def load(*kernels: payload.Kernel) -> Any:
    """A module of these kernels, or a skip where there is no device."""
    require_device()
    return payload.load(payload.write(kernels))


def zeros(shape: tuple[int, ...], dtype: str) -> tvm.runtime.Tensor:
    """A tensor on the first device, or a skip where there is none."""
    require_device()
    return tvm.runtime.tensor(np.zeros(shape, dtype), tvm.opencl(0))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh process; the runtime alone is enough of TVM."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "TVM_USE_RUNTIME_LIB": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
