"""What ``import tvm`` calls through the entry point ``tvm.backends``: OpenCL on first use.

Compiling the runtime here would cost every ``import tvm`` seconds, so that functions are
registered under the names TVM looks for, which compile and load it when TVM calls them: when it
loads a library with OpenCL kernels, when it builds one, and when a device is asked for. The
library then takes their names over.

1. A TVM with an OpenCL runtime of its own keeps it.
2. Without an OpenCL library, or without a C++ compiler and a runtime compiled earlier, devices do
   not exist and building gives TVM's module that can only be exported; loading a library with
   OpenCL kernels says what is missing.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import tvm_ffi

from burnish.runtime.opencl_libraries import candidates
from burnish.targets import native

DEVICE = "device_api.opencl"
CREATE = "ffi.Module.create.opencl"
LOAD = "ffi.Module.load_from_bytes.opencl"


def register() -> None:
    """Register the functions; takes some milliseconds, and compiles nothing."""
    if tvm_ffi.get_global_func(DEVICE, allow_missing=True) is not None:
        return
    if tvm_ffi.get_global_func(LOAD, allow_missing=True) is None:
        _forward(LOAD)
    if _present() and _compilable():
        _forward(DEVICE)
        _forward(CREATE)


def _present() -> bool:
    """Whether one of the libraries to try is there. Opening a loader opens no driver."""
    return any(_opens(name) for name in candidates())


def _opens(name: str) -> bool:
    if os.sep in name:
        return Path(name).is_file()
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _compilable() -> bool:
    try:
        native.find_compiler()
    except native.MissingCompilerError:
        from burnish.targets.opencl import runtime

        return runtime.cached() is not None
    return True


def _forward(name: str) -> None:
    def first_call(*arguments: Any) -> Any:
        from burnish.targets.opencl import runtime

        runtime.ensure()
        return tvm_ffi.get_global_func(name)(*arguments)

    tvm_ffi.register_global_func(name, first_call)
