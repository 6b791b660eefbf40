"""Times of every kernel in a call, noted by a small C function that the virtual machine calls.

The C function costs some ten nanoseconds; one in Python would cost more than small kernels.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from burnish.compiler.artifact import cache_folder
from burnish.compiler.errors import MeasureError
from burnish.compiler.on_device import put
from burnish.passes.send_early import BEGIN, MOVE
from burnish.runtime.tensors import address
from burnish.targets import native
from burnish.targets.hetero import HeteroTarget

SOURCE = Path(__file__).with_name("record.c")
FLAGS = ("-O2", "-fPIC", "-shared")
BUILTIN = ("vm.", "shape_func", BEGIN)
"""What the names of the virtual machine's own functions begin with, and what computes nothing."""


HOST = "cpu:0"
MOVES = ("vm.builtin.to_device", MOVE)


@dataclass(frozen=True)
class Event:
    """One function that a call runs: its name, and for each argument the shape (or scalar) and
    the weight's name, empty where it is none. Nothing is kept of a builtin's arguments, but of a
    move between memories. ``device`` is where its tensors are (of a move, where they go);
    ``inner`` says that it calls others, whose times are in its own."""

    name: str
    arguments: tuple[tuple[int, ...] | int, ...] = ()
    weights: tuple[str, ...] = ()
    device: str = ""
    inner: bool = False

    @property
    def builtin(self) -> bool:
        """Whether it is the virtual machine's own: allocation, checks, reshapes."""
        return self.name.startswith(BUILTIN)


class Recorder:
    """A virtual machine of its own over a compiled model's library and weights.

    On devices that compute while the host goes on, each kernel is waited for.
    """

    def __init__(self, compiled: Any, inputs: Sequence[Any]) -> None:
        self._library = tvm.runtime.load_module(str(_built()))
        target = compiled.target
        several = isinstance(target, HeteroTarget)
        memories = [one.device() for one in target.memories] if several else [tvm.cpu()]
        self._machine = relax.VirtualMachine(
            tvm.runtime.load_module(str(compiled.library)), memories
        )
        self._main = self._machine["main"]
        weights = list(compiled.params.values())
        if several:
            weights = put(weights, memories, compiled.memories)
        self._weights = tvm_ffi.convert(weights)
        self._names = {
            address(value): name for name, value in zip(compiled.params, weights, strict=True)
        }
        self._inputs = list(inputs)
        self._others = [one for one in memories if one.type != "cpu"]
        self._fault: Exception | None = None
        self._wait = ctypes.CFUNCTYPE(None)(self._finish)
        self.events, self._marks = self._watch()
        self._machine.set_instrument(self._library["record"])
        self._stamps = np.zeros(len(self._marks), np.int64)
        self._waits = np.array(
            [bool(self._others) and self.events[event].device != HOST for event, _ in self._marks],
            np.int8,
        )

    def _call(self) -> None:
        self._main(*self._inputs, self._weights)

    def _finish(self) -> None:
        """Wait for what the other devices were given."""
        try:
            for device in self._others:
                device.sync()
        except Exception as error:  # noqa: BLE001 - C cannot hand it on; the call ends by it
            self._fault = error

    def _watch(self) -> tuple[tuple[Event, ...], list[tuple[int, int]]]:
        """The functions of one call, in order; and of each stamp the event, and 1 for its end."""
        found: list[Event] = []
        marks: list[tuple[int, int]] = []
        inside: list[int] = []

        def note(_func: Any, name: str, before: bool, _result: Any, *arguments: Any) -> None:
            if not before:
                marks.append((inside.pop(), 1))
                return
            if inside:
                found[inside[-1]] = replace(found[inside[-1]], inner=True)
            marks.append((len(found), 0))
            inside.append(len(found))
            found.append(self._event(name, arguments))

        self._call()
        self._machine.set_instrument(note)
        self._call()
        return tuple(found), marks

    def _event(self, name: str, arguments: Sequence[Any]) -> Event:
        if name in MOVES:
            tensor, kind, index = arguments[:3]
            there = _named(tvm.runtime.device(int(kind), int(index)))
            here = _named(tensor.device)
            if here == there:  # handed on as it is
                return Event(BUILTIN[0] + name, device=HOST)
            shape = tuple(int(extent) for extent in tensor.shape)
            size = math.prod(shape) * int(tvm.DataType(str(tensor.dtype)).itemsize)
            return Event(f"{here} to {there}", (shape, size), device=there)
        if name.startswith(BUILTIN):
            return Event(name, device=HOST)
        tensors = [one for one in arguments if isinstance(one, tvm.runtime.Tensor)]
        device = _named(tensors[0].device) if tensors else HOST
        shapes = tuple(_argument(one) for one in arguments)
        return Event(name, shapes, tuple(self._weight(one) for one in arguments), device)

    def _weight(self, value: Any) -> str:
        tensor = isinstance(value, tvm.runtime.Tensor)
        return self._names.get(address(value), "") if tensor else ""

    def take(self) -> np.ndarray:
        """Nanoseconds before and after each event of one call: [events, 2].

        MeasureError where the call ran other functions than the one watched.
        """
        waited = ctypes.cast(self._wait, ctypes.c_void_p).value
        self._library["start"](
            self._stamps.ctypes.data, len(self._stamps), self._waits.ctypes.data, waited
        )
        self._call()
        count = int(self._library["count"]())
        if self._fault is not None:
            raise MeasureError(f"a device failed while it was profiled: {self._fault}")
        if count != len(self._stamps):
            raise MeasureError(
                f"a call ran {count // 2} functions, the one before {len(self.events)}: a model "
                "whose calls on the same inputs differ has no profile"
            )
        found = np.zeros((len(self.events), 2), np.int64)
        places = np.asarray(self._marks)
        found[places[:, 0], places[:, 1]] = self._stamps
        return found


def _named(device: tvm.runtime.Device) -> str:
    return f"{device.type}:{device.index}"


def _argument(value: Any) -> tuple[int, ...] | int:
    if isinstance(value, tvm.runtime.Tensor):
        return tuple(int(extent) for extent in value.shape)
    return int(value) if isinstance(value, int) else 0


def _built() -> Path:
    """The C function as a library in the cache folder, built where it is not there yet."""
    try:
        compiler = [*native.find_compiler(), "-x", "c"]
        key = f"{native.source_key([SOURCE], FLAGS)}-{native.compiler_key(compiler)}"
        path = cache_folder() / "profile" / f"record-{key}.so"
        if path.is_file():
            return path
        command = [*compiler, *FLAGS, *native.ffi_includes()]
        return native.shared_library(SOURCE, path, command)
    except RuntimeError as error:
        raise MeasureError(f"a profile needs a small C library: {error}") from error
