"""Devices and links that are not there: delays injected into real runs of real executables.

A model is cut and compiled for ``hetero:cpu,cpu:1``, or for cores that work at the same time. Each
kernel runs for real, and then its thread waits until the kernel has taken what it would take on
the device it is for; each move of a value between devices takes the latency of the link and its
bytes at the link's rate. The same seconds, without the clock, are added up as ``virtual``.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx

from burnish.compiler import on_cores
from burnish.compiler.compiled import Compiled
from burnish.compiler.placement.costs import CostModel, OperatorTime
from burnish.compiler.placement.operators import Operator
from burnish.compiler.profile.kernel import Kernel
from burnish.compiler.profile.records import record
from burnish.compiler.tensors import address
from burnish.passes.partition_graph import DEVICE
from burnish.targets import hetero
from burnish.targets.choose import Target
from burnish.targets.hetero import HeteroTarget

START_S = 5e-5
"""Starting a kernel."""
FLOP_S = {"matmul": 2e-9, "conv": 2e-9}
"""A multiply-add is two."""
OTHER_S, BYTE_S, HEAVY = 1e-8, 1e-9, 10
"""Other arithmetic, where a transcendental counts as ``HEAVY``, and bytes read and written."""
MOVE = "vm.builtin.to_device"
TIMER_SLACK = 29
AWAKE_S = 2e-4
"""Who sleeps wakes up later than it asked to: a thread that is alone waits awake at the end."""
Move = Callable[[str, str, int], float]
"""Seconds of so many bytes from one device to another."""


@dataclass(frozen=True)
class Speed:
    """An emulated device: by how much it is slower than the host, by kind of operator."""

    matmul: float = 1.0
    conv: float = 1.0
    other: float = 1.0

    def seconds(self, kernel: Kernel) -> float:
        """What a kernel takes there, from what it computes and moves."""
        work = kernel.work([() if isinstance(one, str) else one for one in kernel.arguments])
        kind = "conv" if any(w.startswith(("conv", "winograd")) for w in kernel.operators) else ""
        kind = kind or "matmul"
        other = (work.elementwise or 0) + HEAVY * (work.transcendental or 0)
        return (
            START_S
            + getattr(self, kind) * FLOP_S[kind] * (work.flops or 0)
            + self.other * (OTHER_S * other + (0 if work.flops else BYTE_S * work.bytes))
        )


class EmulatedCosts(CostModel):
    """Times of operators on emulated devices, which are told apart by their targets' names."""

    def __init__(self, speeds: Mapping[str, Speed]) -> None:
        self._speeds = speeds

    def start_seconds(self) -> float:
        """Nothing: it is in each operator's time."""
        return 0.0

    def measure(self, operators: Iterable[Operator], target: Target, **_: object) -> int:
        """Nothing is to be done."""
        return 0

    def times(
        self, operators: Iterable[Operator], target: Target
    ) -> tuple[dict[str, OperatorTime], list[Operator]]:
        """The time of each by signature."""
        speed, found = self._speeds[target.name], {}
        for one in operators:
            seconds = speed.seconds(one.record())
            found[one.signature] = OperatorTime(seconds, seconds, 0.0)
        return found, []


def named_devices(text: str) -> HeteroTarget:
    """A target of several CPUs, each one's own target by the name of the device."""
    parsed = hetero.parse_hetero(text).with_threads(1)
    places = [replace(one, target=replace(one.target, name=one.name)) for one in parsed.places]
    return replace(parsed, described=tuple(map(hetero._described, places)))


def kernel_seconds(mod: tvm.IRModule, speeds: Mapping[str, Speed]) -> dict[str, float]:
    """What each kernel of a fused module takes on the device that it is for."""
    return {
        var.name_hint: speeds[str(func.attrs[DEVICE])].seconds(record(var.name_hint, func, ""))
        for var, func in mod.functions.items()
        if isinstance(func, tirx.PrimFunc)
    }


def region_devices(mod: tvm.IRModule) -> dict[str, str]:
    """The device of each region of a fused module."""
    return {
        var.name_hint: str(func.attrs[DEVICE])
        for var, func in mod.functions.items()
        if isinstance(func, relax.Function) and DEVICE in (func.attrs or {})
    }


def exact_sleep() -> None:
    """Let this thread, and those it starts, wake up when they asked to (Linux)."""
    ctypes.CDLL(None).prctl(TIMER_SLACK, 1, 0, 0, 0)


def wait_until(end: float, awake: float = 0.0) -> float:
    """Sleep until then, the last seconds ``awake``; by how many seconds it was late already."""
    left = end - time.perf_counter()
    if left > awake:
        time.sleep(left - awake)
    while awake and time.perf_counter() < end:
        pass
    return max(0.0, -left)


class Kernels:
    """The instrument of a virtual machine: each kernel takes its emulated time.

    ``virtual`` adds up those times; ``late`` is the longest by which a kernel's real time was
    over the emulated one, and is to be 0. Without ``clock`` nothing waits. ``awake`` is as for
    :func:`wait_until`.
    """

    def __init__(
        self,
        seconds: Mapping[str, float],
        move: Callable[..., float],
        clock: bool,
        awake: float = 0.0,
    ) -> None:
        self._seconds, self._move, self._clock = seconds, move, clock
        self._awake = awake
        self.virtual = self.late = 0.0
        self.seen: set[str] = set()

    def __call__(self, _func: Any, name: str, before: bool, _result: Any, *arguments: Any) -> None:
        taken = self._seconds.get(name)
        if taken is None:
            if name != MOVE:
                return
            taken = self._move(*arguments)
        if before:
            self._start = time.perf_counter()
            return
        self.seen.add(name)
        self.virtual += taken
        if self._clock:
            self.late = max(self.late, wait_until(self._start + taken, self._awake))


class InTurns:
    """A compiled model whose devices take turns, on emulated devices and links."""

    def __init__(
        self, compiled: Compiled, seconds: Mapping[str, float], move: Move, *, clock: bool = True
    ) -> None:
        target = compiled.target
        assert isinstance(target, HeteroTarget)
        names = {one.index: one.name for one in target.places}

        def moved(value: Any, _kind: int, index: int, *_: Any) -> float:
            return move(names[value.device.index], names[index], _bytes(value))

        self.kernels = Kernels(seconds, moved, clock, AWAKE_S)
        memories = [one.device() for one in target.memories]
        self._machine = relax.VirtualMachine(
            tvm.runtime.load_module(str(compiled.library)), memories
        )
        self._weights = tvm_ffi.convert(
            [
                value if place == 0 else value.copyto(memories[place])
                for value, place in zip(compiled.params.values(), compiled.memories, strict=True)
            ]
        )
        self._machine.set_instrument(self.kernels)

    def __call__(self, *inputs: np.ndarray) -> tuple[Any, float, float]:
        """The outputs, seconds by the clock, and seconds that were to be injected."""
        given = [tvm.runtime.tensor(one) for one in inputs]
        self.kernels.virtual = 0.0
        start = time.perf_counter()
        out = self._machine["main"](*given, self._weights)
        return out, time.perf_counter() - start, self.kernels.virtual

    @property
    def late(self) -> float:
        """The longest by which a kernel was later than it was to be, in seconds."""
        return self.kernels.late

    @property
    def seen(self) -> set[str]:
        """The kernels that ran."""
        return self.kernels.seen - {MOVE}


@dataclass
class _Value:
    """When a region's result, or an input, is there, by the clock and virtually."""

    device: str
    made: float
    virtual: float


class AtOnce:
    """A compiled model of cores that work at the same time, on emulated devices and links.

    Cores share memory, and what crosses is never copied: a thread that reads a value of another
    device waits until the value would have come over the link, which carries one at a time.
    """

    def __init__(
        self,
        compiled: Compiled,
        seconds: Mapping[str, float],
        move: Move,
        devices: Mapping[str, str],
        host: str,
        *,
        clock: bool = True,
    ) -> None:
        target = compiled.target
        assert isinstance(target, HeteroTarget)
        self._seconds, self._move, self._devices = seconds, move, devices
        self._host, self._clock = host, clock
        self._lock = threading.Lock()
        self._threads: dict[str, Kernels] = {}
        self._original = {name: getattr(on_cores, name) for name in ("_run", "_value")}
        cores = {one.name: one.cores for one in target.places}
        library = tvm.runtime.load_module(str(compiled.library))
        with patch.object(on_cores, "_value", self._value):  # a machine keeps what it finds now
            self._main = on_cores.OnCores(library, list(compiled.params.values()), cores)
        on_cores.register()

    def __call__(self, *inputs: np.ndarray) -> tuple[Any, float, float]:
        """As for :class:`InTurns`; the virtual time is when the last output is there."""
        given = [tvm.runtime.tensor(one) for one in inputs]
        self._made: dict[int, _Value] = {}
        self._arrived: dict[tuple[Any, ...], tuple[float, float]] = {}
        self._free: dict[tuple[str, str], tuple[float, float]] = {}
        self._clocks: dict[str, float] = {}
        self._ended = 0.0
        with patch.object(on_cores, "_run", self._run):
            start = time.perf_counter()
            self._inputs = {address(one): _Value(self._host, start, 0.0) for one in given}
            out = self._main(*given, None)
            end = time.perf_counter()
        return out, end - start, self._ended

    @property
    def seen(self) -> set[str]:
        """As for :class:`InTurns`."""
        return {name for one in self._threads.values() for name in one.seen}

    @property
    def late(self) -> float:
        """As for :class:`InTurns`."""
        return max((one.late for one in self._threads.values()), default=0.0)

    def _value(self, started: on_cores.Started) -> Any:
        found = self._original["_value"](started)
        self._ended = max(self._ended, self._arrive(started, found, self._host))
        return found

    def _run(self, machine: Any, refused: Any, started: Any, arguments: Any, until: float) -> None:
        device = self._devices[started.region]
        if device not in self._threads:
            self._threads[device] = Kernels(self._seconds, self._no_move, self._clock)
            machine.set_instrument(self._threads[device])
        kernels = self._threads[device]
        kernels.virtual = self._clocks.get(device, 0.0)
        try:
            for one in arguments:
                found = one.value(until) if isinstance(one, on_cores.Started) else one
                kernels.virtual = max(kernels.virtual, self._arrive(one, found, device))
        except BaseException:  # noqa: BLE001 - the region itself raises it again
            self._original["_run"](machine, refused, started, arguments, until)
            return
        done: Future[Any] = Future()
        self._original["_run"](machine, refused, replace(started, future=done), arguments, until)
        self._clocks[device] = kernels.virtual
        made = _Value(device, time.perf_counter(), kernels.virtual)
        self._made[id(started.future)] = made
        if (error := done.exception()) is not None:
            started.future.set_exception(error)
        else:
            started.future.set_result(done.result())

    def _arrive(self, what: Any, found: Any, device: str) -> float:
        """Wait until a value is on ``device``; when that is, virtually."""
        if isinstance(what, on_cores.Started):
            key = (id(what.future), what.fields, device)
            value = self._made[id(what.future)]
        elif address(found) in self._inputs:
            key = (address(found), (), device)
            value = self._inputs[address(found)]
        else:
            return 0.0  # a weight
        if value.device == device:
            return value.virtual
        with self._lock:
            if key not in self._arrived:
                link = value.device, device
                taken = self._move(*link, _bytes(found))
                free = self._free.get(link, (0.0, 0.0))
                end = max(free[0], value.made) + taken, max(free[1], value.virtual) + taken
                self._free[link] = self._arrived[key] = end
            real, virtual = self._arrived[key]
        if self._clock:
            wait_until(real)
        return virtual

    @staticmethod
    def _no_move(*_: Any) -> float:
        raise RuntimeError("cores share memory: nothing is copied between them")


def _bytes(value: Any) -> int:
    parts: Sequence[Any] = [value] if hasattr(value, "shape") else list(value)
    return sum(
        int(np.prod([int(n) for n in one.shape])) * int(tvm.DataType(str(one.dtype)).itemsize)
        for one in parts
    )


__all__ = [
    "AtOnce",
    "EmulatedCosts",
    "InTurns",
    "Speed",
    "exact_sleep",
    "kernel_seconds",
    "named_devices",
    "region_devices",
]
