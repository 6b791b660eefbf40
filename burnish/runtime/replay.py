"""Calls without the virtual machine: the kernels of one call recorded, then run in that order.

For models whose shapes are all known and whose calls all run the same kernels. Memory between
kernels is that of the recorded call, kept: planned once, and nothing is allocated but outputs,
which the caller gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import tvm_ffi

from . import tensors
from .machine import machine_of

REPLAY = "burnish_replay"
"""The function of a library that runs a plan."""
SILENT = frozenset(
    f"vm.builtin.{name}"
    for name in (
        "alloc_shape_heap",
        "alloc_storage",
        "alloc_tensor",
        "check_prim_value_info",
        "check_shape_info",
        "check_tensor_info",
        "check_tuple_info",
        "make_prim_value",
        "make_shape",
        "make_tuple",
        "match_prim_value",
        "match_shape",
        "null_value",
        "reshape",
        "tuple_getitem",
    )
)
"""What the virtual machine does between kernels whose result does not depend on the inputs' values
where their shapes are known. A call that runs anything else is not recorded."""

_ANY = np.dtype([("type", "i4"), ("padding", "u4"), ("value", "i8")])
_STEP = np.dtype([("kernel", "i8"), ("first", "i8"), ("count", "i8")])
_PLACE = np.dtype([("tensor", "i8"), ("slot", "i8"), ("offset", "i8")])
_TENSOR = np.dtype(
    {
        "names": ["data", "device", "rank", "dtype", "shape", "strides", "offset"],
        "formats": ["u8", ("i4", 2), "i4", "u4", "u8", "u8", "u8"],
    }
)
"""``TVMFFIAny``, the structures of ``replay.c`` and ``DLTensor``."""
_INT, _FLOAT, _TENSOR_POINTER = 1, 3, 7
"""``TVMFFITypeIndex``."""
_CPU = (1, 0)


@dataclass(frozen=True)
class Span:
    """Memory of an input, an output or anything else."""

    start: int
    size: int

    def holds(self, other: Span) -> bool:
        return self.start <= other.start and other.start + other.size <= self.start + self.size

    def meets(self, other: Span) -> bool:
        return self.start < other.start + other.size and other.start < self.start + self.size


@dataclass(frozen=True)
class Call:
    """A kernel and its arguments: tensors, integers and floats."""

    kernel: Any
    arguments: tuple[Any, ...]


class Replay:
    """A recorded call, ready to be run on other inputs; not by two threads at once.

    ``outputs`` are the shape and dtype of each output.
    """

    def __init__(
        self,
        function: Callable[..., object],
        calls: Sequence[Call],
        slots: Sequence[Span],
        outputs: Sequence[tuple[tuple[int, ...], str]],
    ) -> None:
        self.function = function
        self.outputs = tuple(outputs)
        self._plan = _Plan(calls, slots)
        self.address = self._plan.address

    def __call__(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Fill outputs for inputs of the recorded sizes, all contiguous and aligned."""
        self.function(self.address, *inputs, *outputs)


class _Plan:
    """Calls in the layout that ``replay.c`` reads, and what must live as long."""

    def __init__(self, calls: Sequence[Call], slots: Sequence[Span]) -> None:
        self._slots = slots
        self._kept: list[Any] = [call.kernel for call in calls]
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._tensors: list[tuple[Any, ...]] = []
        self._places: list[tuple[int, int, int]] = []
        arguments: list[tuple[int, Any]] = []
        steps = []
        for call in calls:
            kernel = call.kernel.__chandle__()
            steps.append((kernel, len(arguments), len(call.arguments)))
            arguments += [self._argument(value) for value in call.arguments]
        tensors = np.array(self._tensors, _TENSOR)
        values = np.zeros(len(arguments), _ANY)
        for place, (kind, value) in enumerate(arguments):
            values[place]["type"] = kind
            if kind == _FLOAT:
                value = int(np.float64(value).view(np.int64))
            elif kind == _TENSOR_POINTER:
                value = tensors.ctypes.data + value * _TENSOR.itemsize
            values[place]["value"] = value
        step_table, place_table = np.array(steps, _STEP), np.array(self._places, _PLACE)
        self._header = np.array(
            [
                step_table.ctypes.data,
                len(step_table),
                place_table.ctypes.data,
                len(place_table),
                values.ctypes.data,
                tensors.ctypes.data,
            ],
            np.int64,
        )
        self._kept += [step_table, place_table, values, tensors]
        self.address = int(self._header.ctypes.data)

    def _argument(self, value: Any) -> tuple[int, Any]:
        if isinstance(value, tvm_ffi.Tensor):
            return _TENSOR_POINTER, self._tensor(value)
        return (_FLOAT, value) if isinstance(value, float) else (_INT, int(value))

    def _tensor(self, value: Any) -> int:
        span, shape, dtype = _span(value), tuple(map(int, value.shape)), str(value.dtype)
        key = (span.start, shape, dtype)
        if key in self._numbers:
            return self._numbers[key]
        number = self._numbers[key] = len(self._tensors)
        dims = np.array([*shape, *_strides(shape)], np.int64)
        self._kept.append(dims)
        kind = tvm_ffi.dtype(dtype)
        code = kind.type_code | kind.bits << 8 | kind.lanes << 16
        row = (_CPU, len(shape), code, dims.ctypes.data)
        strides = dims.ctypes.data + 8 * len(shape)
        inside = [slot for slot, owner in enumerate(self._slots) if owner.holds(span)]
        if inside:
            self._places.append((number, inside[0], span.start - self._slots[inside[0]].start))
        else:
            self._kept.append(value)
        self._tensors.append((span.start, *row, strides, 0))
        return number


def record(
    library: Any, inputs: Sequence[Any], weights: Any, machine: Any = None
) -> tuple[Replay | None, list[Any]]:
    """Run ``main`` of a library once, on a virtual machine of its own or the given new one.

    The outputs, and the call as recorded; ``None`` where other inputs could run other kernels,
    where a kernel reads or writes memory that is not the CPU's, or where an output shares memory
    with an input, a weight or another output.
    """
    machine = machine_of(library) if machine is None else machine
    calls: list[Call] = []
    unknown: list[str] = []
    known: dict[str, bool] = {}
    functions: set[str] = set()

    def note(kernel: Any, name: str, before: bool, _result: Any, *arguments: Any) -> None:
        if not before or name in SILENT:
            return
        if name in functions:
            return  # of the machine's own: what it calls is noted
        if name not in known:
            if _is_function(machine, name):
                functions.add(name)
                return
            known[name] = not name.startswith("vm.") and library.implements_function(name, True)
        if known[name] and all(map(_simple, arguments)):
            calls.append(Call(kernel, arguments))
        else:
            unknown.append(name)

    machine["set_instrument"](tvm_ffi.convert_func(note))
    result = machine["main"](*inputs, weights)
    outputs = [result] if isinstance(result, tvm_ffi.Tensor) else list(result)
    if unknown or not all(isinstance(value, tvm_ffi.Tensor) for value in outputs):
        return None, outputs
    slots = [_span(value) for value in (*inputs, *outputs)]
    others = [_span(value) for value in weights]
    used = [_span(v) for call in calls for v in call.arguments if not isinstance(v, int | float)]
    if not separate(slots, others, used):
        return None, outputs
    forms = [(tuple(map(int, v.shape)), str(v.dtype)) for v in outputs]
    function = library.get_function(REPLAY, query_imports=True)
    return Replay(function, calls, slots, forms), outputs


def _is_function(machine: Any, name: str) -> bool:
    """Whether a name is of a function that the virtual machine itself runs, with parameters.

    It knows kernels by name too, without any.
    """
    try:
        return int(machine["get_function_arity"](name)) > 0
    except ValueError:
        return False


def _simple(value: Any) -> bool:
    """Whether a plan can hold an argument: numbers, and tensors in the CPU's memory."""
    if isinstance(value, tvm_ffi.Tensor):
        return bool(value.__dlpack_device__() == _CPU)
    return isinstance(value, int | float)


def separate(slots: Sequence[Span], weights: Sequence[Span], used: Sequence[Span]) -> bool:
    """Whether what is in a slot is in that one alone, and wholly so."""
    if any(slot.size == 0 for slot in slots) or any(span.size == 0 for span in used):
        return False  # empty tensors have no address to tell them apart by
    ordered = sorted((*slots, *set(weights)), key=lambda span: span.start)
    if any(a.meets(b) for a, b in pairwise(ordered)):
        return False
    return not any(slot.meets(s) and not slot.holds(s) for s in set(used) for slot in slots)


def _span(value: Any) -> Span:
    size = tensors.size_of(value.shape, str(value.dtype))
    return Span(tensors.address(value), size)


def _strides(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
