"""Times of every kernel in a call, noted by a small C function that the virtual machine calls.

The C function costs some ten nanoseconds; one in Python would cost more than small kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from burnish.compiler.artifact import cache_folder
from burnish.compiler.errors import MeasureError
from burnish.compiler.tensors import address
from burnish.targets import native

SOURCE = Path(__file__).with_name("record.c")
FLAGS = ("-O2", "-fPIC", "-shared")
BUILTIN = ("vm.", "shape_func")
"""What the names of the virtual machine's own functions begin with."""


@dataclass(frozen=True)
class Event:
    """One function that a call runs: its name, and for each argument the shape (or scalar) and
    the weight's name, empty where it is none. Nothing is kept of a builtin's arguments."""

    name: str
    arguments: tuple[tuple[int, ...] | int, ...] = ()
    weights: tuple[str, ...] = ()

    @property
    def builtin(self) -> bool:
        """Whether it is the virtual machine's own: allocation, checks, reshapes."""
        return self.name.startswith(BUILTIN)


class Recorder:
    """A virtual machine of its own over a compiled model's library and weights."""

    def __init__(self, compiled: Any, inputs: Sequence[Any]) -> None:
        self._library = tvm.runtime.load_module(str(_built()))
        self._machine = relax.VirtualMachine(
            tvm.runtime.load_module(str(compiled.library)), tvm.cpu()
        )
        self._main = self._machine["main"]
        self._weights = tvm_ffi.convert(list(compiled.params.values()))
        self._names = {address(value): name for name, value in compiled.params.items()}
        self._inputs = list(inputs)
        self.events = self._watch()
        self._machine.set_instrument(self._library["record"])
        self._stamps = np.zeros(2 * len(self.events), np.int64)

    def _call(self) -> None:
        self._main(*self._inputs, self._weights)

    def _watch(self) -> tuple[Event, ...]:
        """The functions of one call, in order."""
        found: list[Event] = []

        def note(_func: Any, name: str, before: bool, _result: Any, *arguments: Any) -> None:
            event = Event(name)
            if before and not event.builtin:
                shapes = tuple(_argument(a) for a in arguments)
                event = Event(name, shapes, tuple(self._weight(a) for a in arguments))
            if before:
                found.append(event)

        self._call()
        self._machine.set_instrument(note)
        self._call()
        return tuple(found)

    def _weight(self, value: Any) -> str:
        tensor = isinstance(value, tvm.runtime.Tensor)
        return self._names.get(address(value), "") if tensor else ""

    def take(self) -> np.ndarray:
        """Nanoseconds before and after each event of one call: [events, 2].

        MeasureError where the call ran other functions than the one watched.
        """
        self._library["start"](self._stamps.ctypes.data, len(self._stamps))
        self._call()
        count = int(self._library["count"]())
        if count != len(self._stamps):
            raise MeasureError(
                f"a call ran {count // 2} functions, the one before {len(self.events)}: a model "
                "whose calls on the same inputs differ has no profile"
            )
        return self._stamps.reshape(-1, 2).copy()


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
