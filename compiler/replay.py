"""Calls without the virtual machine: the kernels of one call recorded, then run in that order.

For models whose shapes are all known and whose calls all run the same kernels. Memory between
kernels is that of the recorded call, kept: planned once, and nothing is allocated but outputs,
whose memory is used again where it is large (:mod:`burnish.compiler.output_memory`).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import tvm
import tvm_ffi
from tvm import relax

from burnish.compiler.output_memory import OutputMemory
from burnish.targets.cpu import pool

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
_OBJECT_BYTES = 24
"""``sizeof(TVMFFIObject)``, after which the ``DLTensor`` of a tensor object stands."""


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
    """A recorded call, ready to be run on other inputs; not by two threads at once."""

    def __init__(
        self,
        function: Callable[..., object],
        calls: Sequence[Call],
        slots: Sequence[Span],
        outputs: Sequence[tuple[tuple[int, ...], torch.dtype]],
    ) -> None:
        self._function = function
        self._outputs = [OutputMemory(shape, dtype) for shape, dtype in outputs]
        self._plan = _Plan(calls, slots)

    def __call__(self, inputs: Sequence[Any]) -> list[torch.Tensor]:
        """Outputs for inputs of the recorded shapes and dtypes, contiguous and aligned."""
        outputs = [memory.tensor() for memory in self._outputs]
        self._function(self._plan.address, *inputs, *outputs)
        return outputs


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
        if isinstance(value, tvm.runtime.Tensor):
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
        kind = tvm.DataType(dtype)
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
    library: tvm.runtime.Module, inputs: Sequence[tvm.runtime.Tensor], weights: Any
) -> tuple[Replay | None, list[Any]]:
    """Run ``main`` of a library once, on a virtual machine of its own.

    The outputs, and the call as recorded; ``None`` where other inputs could run other kernels, or
    where an output shares memory with an input, a weight or another output.
    """
    machine = relax.VirtualMachine(library, tvm.cpu())
    calls: list[Call] = []
    unknown: list[str] = []
    known: dict[str, bool] = {}

    def note(kernel: Any, name: str, before: bool, _result: Any, *arguments: Any) -> None:
        if not before or name in SILENT:
            return
        if name not in known:
            known[name] = not name.startswith("vm.") and library.implements_function(name, True)
        simple = all(isinstance(v, tvm.runtime.Tensor | int | float) for v in arguments)
        if known[name] and simple:
            calls.append(Call(kernel, arguments))
        else:
            unknown.append(name)

    machine.set_instrument(note)
    result = machine["main"](*inputs, weights)
    outputs = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    if unknown or not all(isinstance(value, tvm.runtime.Tensor) for value in outputs):
        return None, outputs
    slots = [_span(value) for value in (*inputs, *outputs)]
    others = [_span(value) for value in weights]
    used = [_span(v) for call in calls for v in call.arguments if not isinstance(v, int | float)]
    if not separate(slots, others, used):
        return None, outputs
    forms = [(tuple(map(int, v.shape)), getattr(torch, str(v.dtype))) for v in outputs]
    function = library.get_function(pool.REPLAY, query_imports=True)
    return Replay(function, calls, slots, forms), outputs


def separate(slots: Sequence[Span], weights: Sequence[Span], used: Sequence[Span]) -> bool:
    """Whether what is in a slot is in that one alone, and wholly so."""
    if any(slot.size == 0 for slot in slots) or any(span.size == 0 for span in used):
        return False  # empty tensors have no address to tell them apart by
    ordered = sorted((*slots, *set(weights)), key=lambda span: span.start)
    if any(a.meets(b) for a, b in pairwise(ordered)):
        return False
    return not any(slot.meets(s) and not slot.holds(s) for s in set(used) for slot in slots)


def _span(value: Any) -> Span:
    size = math.prod(map(int, value.shape)) * tvm.DataType(str(value.dtype)).itemsize
    header = (ctypes.c_uint64 * 6).from_address(value.__chandle__() + _OBJECT_BYTES)
    return Span(header[0] + header[5], size)


def _strides(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def private(value: Any) -> tvm.runtime.Tensor:
    """A copy of an input in memory of its own."""
    tensor = tvm_ffi.from_dlpack(value) if isinstance(value, torch.Tensor) else value
    copy = tvm.runtime.empty(tuple(map(int, tensor.shape)), str(tensor.dtype))
    copy.copyfrom(tensor)
    return copy
