"""A library whose regions run at the same time, each on the cores that it is for."""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from dataclasses import dataclass, field, replace
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from burnish.compiler.errors import BurnishError
from burnish.passes.start_regions import FIELD, START, VALUE
from burnish.runtime import threads
from burnish.targets.core_sets import bind

LOOK_S = 0.2
"""How often a wait looks whether what it waits for can still come."""
LIMIT_S = 600.0
"""A call of a model that takes longer is given up."""
END_S = 1.0
"""A thread that has not ended after this has a region that does not."""


class RegionError(BurnishError):
    """A region did not end, or its cores cannot be used."""


class NotEnded(RegionError):
    """A region took longer than a call may."""


@dataclass
class Started:
    """What a region will return, or a field of it."""

    region: str
    future: Future[Any]
    fields: tuple[int, ...] = ()
    device: str = ""
    thread: threading.Thread | None = None

    def value(self, until: float) -> Any:
        """The value once it is there; raises what the region raised, or :class:`RegionError`."""
        while True:
            left = until - time.monotonic()
            try:
                found = self.future.result(max(0.0, min(left, LOOK_S)))
                break
            except NotDone:
                if self.future.done():
                    continue  # it came between the two looks
                where = f"{self.region} on {self.device}"
                if self.thread is not None and not self.thread.is_alive():
                    text = f"{where} will not end: the thread of its cores is gone"
                    raise RegionError(text, stage="run") from None
                if left <= LOOK_S:
                    raise NotEnded(f"{where} has not ended in time", stage="run") from None
        for place in self.fields:
            found = found[place]
        return found


Job = tuple[Started, tuple[Any, ...], float]


@dataclass
class _Call:
    """One call of a model: when it must be done, the regions it started, and what it failed by."""

    queues: Mapping[str, queue.SimpleQueue[Job | None]]
    threads: Mapping[str, threading.Thread]
    until: float
    started: list[Started] = field(default_factory=list)
    fault: BaseException | None = None

    def start(self, device: str, region: str, arguments: tuple[Any, ...]) -> Started:
        made = Started(region, Future(), device=device, thread=self.threads[device])
        self.started.append(made)
        self.queues[device].put((made, arguments, self.until))
        return made


_now = threading.local()


def _start(device: str, region: str, *arguments: Any) -> Started:
    if getattr(_now, "call", None) is None:
        raise RegionError(
            "regions that run at the same time are started by calling the model", stage="run"
        )
    return _now.call.start(str(device), str(region), arguments)


def _field(started: Started, place: int) -> Started:
    return replace(started, fields=(*started.fields, int(place)))


def _value(started: Started) -> Any:
    try:
        return started.value(_now.call.until)
    except NotEnded as error:
        late = next((one for one in _now.call.started if not one.future.done()), started)
        told = f"{late.region} on {late.device} has not ended in time"
        _now.call.fault = NotEnded(told, stage="run")
        raise _now.call.fault from error
    except BaseException as error:
        _now.call.fault = error
        raise


def register() -> None:
    """Let models in this process start their regions."""
    for name, function in ((START, _start), (FIELD, _field), (VALUE, _value)):
        tvm_ffi.register_global_func(name, function, override=True)


class OnCores:
    """``main`` of a library whose regions run on ``cores``, a set by name of the device.

    One thread a set, bound to it, with a virtual machine of its own, runs its regions in the
    order in which ``main`` starts them, each when its inputs are there. Loops of kernels run on a
    pool of that thread's own, a thread a core of the set. A call ends when all that it started has
    ended. A call that is not done after ``limit_s`` seconds raises :class:`RegionError`, and so
    does every later one: its regions may run still.
    """

    def __init__(
        self,
        library: tvm.runtime.Module,
        weights: Sequence[tvm.runtime.Tensor],
        cores: Mapping[str, Sequence[int]],
        *,
        limit_s: float = LIMIT_S,
    ) -> None:
        register()
        self._library, self._cores, self._limit_s = library, dict(cores), limit_s
        self._main = relax.VirtualMachine(library, tvm.cpu())["main"]
        self._weights = tvm_ffi.convert(list(weights))
        self._queues: dict[str, queue.SimpleQueue[Job | None]] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._process = 0
        self._lost = ""
        self._open: _Call | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Outputs for inputs, both in the host's memory; the last argument is not read."""
        if self._lost:
            raise RegionError(f"an earlier call was given up: {self._lost}", stage="run")
        if self._process != os.getpid():
            self._begin()
        elif self._open is not None:  # interrupted while it was waited for
            self._settle(self._open)
        call = _Call(self._queues, self._threads, time.monotonic() + self._limit_s)
        outer, _now.call, self._open = getattr(_now, "call", None), call, call
        try:
            return self._main(*arguments[:-1], self._weights)
        except Exception:
            if call.fault is not None:  # the machine tells its class only where that is built in
                raise call.fault from call.fault.__cause__
            raise
        finally:
            _now.call = outer
            self._settle(call)

    def _begin(self) -> None:
        """Start the threads: there are none yet, or this is a forked child, which has none."""
        self._queues = {name: queue.SimpleQueue() for name in self._cores}
        self._process = os.getpid()
        own_pool = threads.own_pool(self._library)
        for name, cores in self._cores.items():
            machine = relax.VirtualMachine(self._library, tvm.cpu())
            work = (self._queues[name], machine, own_pool, name, cores)
            one = threading.Thread(target=_work, args=work, name=f"burnish-{name}", daemon=True)
            one.start()
            self._threads[name] = one
            weakref.finalize(self, _end, self._queues[name], one)

    def _settle(self, call: _Call) -> None:
        """Wait until nothing reads the inputs any more."""
        for one in call.started:
            try:
                one.value(call.until)
            except RegionError as error:
                if not one.future.done():
                    self._lost = str(error)
            except Exception:  # noqa: BLE001 - it has been raised by `main`, or nobody reads it
                continue
        self._open = None


def _end(jobs: queue.SimpleQueue[Job | None], thread: threading.Thread) -> None:
    """Let a thread end; a process that ends would break it off in the middle of that."""
    jobs.put(None)
    if thread is not threading.current_thread():
        thread.join(END_S)


def _work(
    jobs: queue.SimpleQueue[Job | None],
    machine: Any,
    own_pool: Callable[[int], object],
    name: str,
    cores: Sequence[int],
) -> None:
    refused: RegionError | None = None
    try:
        bind(cores)
        own_pool(len(cores))
    except Exception as error:  # noqa: BLE001 - the calls that wait for its regions raise it
        refused = RegionError(f"{name}: {error}", stage="run")
    while (job := jobs.get()) is not None:
        _run(machine, refused, *job)
        del job
    own_pool(0)


def _run(
    machine: Any,
    refused: RegionError | None,
    started: Started,
    arguments: tuple[Any, ...],
    until: float,
) -> None:
    try:
        if refused is not None:
            raise refused
        given = [one.value(until) if isinstance(one, Started) else one for one in arguments]
        started.future.set_result(machine[started.region](*given))
    except RegionError as error:
        started.future.set_exception(error)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the call that waits ends by it
        said = str(error).strip() or type(error).__name__
        told = RegionError(f"{started.region} on {started.device} failed: {said}", stage="run")
        told.__cause__ = error
        started.future.set_exception(told)


__all__ = ["LIMIT_S", "OnCores", "RegionError", "register"]
