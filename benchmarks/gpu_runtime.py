"""Loading a compiled library and calling it, with TVM's runtime library and tvm-ffi alone."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CUDA, CPU = 2, 1
POOLED = 2
"""Device types, and TVM's allocator that keeps what was freed for the next call."""


def open_runtime(folder: Path) -> Any:
    """tvm-ffi, with TVM's runtime and its CUDA part in this process; torch is loaded already.

    ``folder`` has ``site`` (tvm-ffi) and ``lib`` (TVM's libraries). They need CUDA's own runtime
    library, which PyTorch brings along. ``OSError`` names what is missing.
    """
    os.environ.setdefault("TVM_FFI_DISABLE_TORCH_C_DLPACK", "1")
    sys.path.insert(0, str(folder / "site"))
    import tvm_ffi

    for path in (_cuda_runtime(), folder / "lib/libtvm_runtime.so"):
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(folder / "lib/libtvm_runtime_cuda.so"), ctypes.RTLD_GLOBAL)
    return tvm_ffi


def _cuda_runtime() -> Path | str:
    """CUDA's runtime library where pip put it, else wherever the loader finds it."""
    for entry in sys.path:
        path = Path(entry, "nvidia", "cu13", "lib", "libcudart.so.13")
        if path.is_file():
            return path
    return "libcudart.so.13"


class Loaded:
    """A library's ``main``, on the first GPU."""

    def __init__(self, tvm_ffi: Any, path: Path) -> None:
        self._ffi = tvm_ffi
        self._library = tvm_ffi.load_module(str(path))
        self._machine = self._library["vm_load_executable"]()
        self._machine["vm_initialization"](CUDA, 0, POOLED, CPU, 0, POOLED)
        self._main = self._machine["main"]
        self._weights: Any = None

    def set_weights(self, weights: Sequence[Any]) -> None:
        """The weights, torch tensors on the GPU, in the order of the manifest."""
        self._kept = list(weights)
        self._weights = self._ffi.convert([self._ffi.from_dlpack(value) for value in weights])

    def __call__(self, *inputs: Any) -> list[Any]:
        """Outputs as torch tensors, for torch tensors on the GPU; on torch's current stream."""
        import torch

        with self._ffi.use_torch_stream():
            given = [self._ffi.from_dlpack(value) for value in inputs]
            result = self._main(*given, self._weights)
        outputs = [result] if isinstance(result, self._ffi.Tensor) else list(result)
        return [torch.from_dlpack(value) for value in outputs]
