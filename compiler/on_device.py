"""Calling a library on a device with memory of its own: inputs there, outputs back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import tvm
import tvm_ffi
from tvm import relax


class OnDevice:
    """``main`` of a library on a device; its weights stay there."""

    def __init__(
        self,
        library: tvm.runtime.Module,
        weights: Sequence[tvm.runtime.Tensor],
        device: tvm.runtime.Device,
    ) -> None:
        self._library, self._device, self.memories = library, device, (device,)
        self._main = relax.VirtualMachine(library, device)["main"]
        self._weights = tvm_ffi.convert([self._sent(value) for value in weights])

    def __call__(self, *arguments: Any) -> Any:
        """Outputs on the host, for inputs there; the last argument, the weights, is not read."""
        result = self._main(*map(self._sent, arguments[:-1]), self._weights)
        if isinstance(result, tvm.runtime.Tensor):
            return self._back(result)
        return tvm_ffi.convert([self._back(value) for value in result])

    def noted(self, note: Any, *arguments: Any) -> None:
        """The same call, each function that it runs told to ``note`` (TVM's instrument)."""
        machine = relax.VirtualMachine(self._library, self._device)
        machine.set_instrument(note)
        machine["main"](*map(self._sent, arguments[:-1]), self._weights)

    def _sent(self, value: Any) -> tvm.runtime.Tensor:
        tensor = value if isinstance(value, tvm.runtime.Tensor) else tvm_ffi.from_dlpack(value)
        shape = tuple(map(int, tensor.shape))
        return tvm.runtime.empty(shape, str(tensor.dtype), self._device).copyfrom(tensor)

    @staticmethod
    def _back(value: tvm.runtime.Tensor) -> tvm.runtime.Tensor:
        return value.copyto(tvm.cpu())


class OnDevices:
    """``main`` of a library on several devices; each weight stays in the memory that it is for.

    ``memories`` are the devices in the machine's order, the host first; ``places`` has the number
    of one of them for each weight.
    """

    def __init__(
        self,
        library: tvm.runtime.Module,
        weights: Sequence[tvm.runtime.Tensor],
        memories: Sequence[tvm.runtime.Device],
        places: Sequence[int],
    ) -> None:
        self._library, self._memories = library, list(memories)
        self._main = self.machine()["main"]
        self._weights = tvm_ffi.convert(put(weights, memories, places))

    @property
    def memories(self) -> list[tvm.runtime.Device]:
        """Its devices, the host first."""
        return self._memories

    def noted(self, note: Any, *arguments: Any) -> None:
        """The same call, each function that it runs told to ``note`` (TVM's instrument)."""
        machine = relax.VirtualMachine(self._library, self._memories)
        machine.set_instrument(note)
        machine["main"](*arguments[:-1], self._weights)

    def machine(self) -> tvm.runtime.Module:
        """A virtual machine of its own for the library and these devices."""
        return relax.VirtualMachine(self._library, self._memories).module

    def __call__(self, *arguments: Any) -> Any:
        """Outputs on the host, for inputs there; the last argument, the weights, is not read."""
        try:
            return self._main(*arguments[:-1], self._weights)
        except BaseException:
            for device in self._memories:
                with suppress(Exception):  # what came first is told
                    device.sync()  # what was sent may be read still
            raise


def put(
    weights: Sequence[tvm.runtime.Tensor],
    memories: Sequence[tvm.runtime.Device],
    places: Sequence[int],
) -> list[tvm.runtime.Tensor]:
    """Each weight in the memory that it is for."""
    return [
        value if place == 0 else value.copyto(memories[place])
        for value, place in zip(weights, places, strict=True)
    ]
