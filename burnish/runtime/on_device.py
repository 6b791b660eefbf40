"""Calling a library on a device with memory of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm_ffi

from . import tensors
from .machine import machine_of


class OnDevice:
    """``main`` of a library on the first device of a kind, ``cuda`` or ``opencl``; its weights
    stay there."""

    def __init__(self, library: Any, weights: Sequence[Any], kind: str) -> None:
        self._device = tvm_ffi.device(kind, 0)
        self._copy = tvm_ffi.get_global_func("runtime.TVMTensorCopyFromTo")
        self._main = machine_of(library, self._device.dlpack_device_type())["main"]
        self._weights = tvm_ffi.convert([self._sent(value) for value in weights])

    def __call__(self, *arguments: Any) -> Any:
        """Outputs on the device, for inputs on the host; the last argument, the weights, is not
        read.

        Reading an output (:func:`.tensors.read`) waits for it.
        """
        return self._main(*map(self._sent, arguments[:-1]), self._weights)

    def _sent(self, value: Any) -> Any:
        copy = tensors.empty(tuple(map(int, value.shape)), str(value.dtype), self._device)
        self._copy(value, copy)
        return copy
