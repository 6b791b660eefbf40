"""The child process of the measuring service: loads runners, times calls, answers.

Started as ``python -m burnish.compiler.measure.worker FD``; FD is its end of a socket pair. It
leaves when the other end closes, or when its parent is gone.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any

from burnish.compiler.measure.runners import Bind, Call
from burnish.compiler.measure.values import plain
from burnish.compiler.measure.wire import Channel

WARM_S = 0.1
"""Seconds of warm-up calls after loading, three calls at least."""


class Hosted:
    """A loaded runner: its call, what one call takes, and the memory before it was loaded."""

    def __init__(self, bind: Bind, rss: int, load_s: float) -> None:
        self.bind, self.rss, self.load_s = bind, rss, load_s
        self.call: Call | None = None
        self.call_s = 0.0
        self.peak = 0


def status_bytes(key: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    except (OSError, StopIteration):
        return 0


def reset_high_water() -> None:
    """Give freed memory back and start the high-water mark from what is left."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except (OSError, AttributeError):
        return


class Session:
    """The requests a worker answers, one method each."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.hosted: dict[str, Hosted] = {}

    def open(self, name: str, payload: bytes) -> float:
        """Load a runner; seconds it took, its runtime's import apart."""
        import cloudpickle

        runner = cloudpickle.loads(payload)
        runner.prepare(self.threads)
        reset_high_water()
        rss = status_bytes("VmRSS")
        start = time.perf_counter()
        bind = runner.open()
        self.hosted[name] = Hosted(bind, rss, time.perf_counter() - start)
        return self.hosted[name].load_s

    def bind(self, name: str, inputs: Any) -> tuple[float, float]:
        """Set the inputs and warm up; seconds of the first call, and of the best later one."""
        hosted = self.hosted[name]
        hosted.call = hosted.bind(inputs)
        reset_high_water()
        first = best = _timed(hosted.call, 1)
        start, calls = time.perf_counter(), 0
        while calls < 2 or (time.perf_counter() - start < WARM_S and calls < 10_000):
            best = min(best, _timed(hosted.call, 1))
            calls += 1
        hosted.peak = max(hosted.peak, status_bytes("VmHWM") - hosted.rss)
        hosted.call_s = best
        return first, best

    def time(self, name: str, samples: int, sample_s: float, warm_s: float) -> list[float]:
        """Milliseconds of a call, ``samples`` times, each the mean over ``sample_s`` or more."""
        hosted = self.hosted[name]
        call = hosted.call
        if call is None:
            raise RuntimeError(f"{name} has no inputs yet")
        inner = max(1, round(sample_s / max(hosted.call_s, 1e-7) + 0.5))
        reset_high_water()
        if hosted.call_s < warm_s:
            _timed(call, max(1, inner // 2))
        found = [_timed(call, inner) * 1e3 for _ in range(samples)]
        hosted.call_s = min(hosted.call_s, min(found) / 1e3)
        hosted.peak = max(hosted.peak, status_bytes("VmHWM") - hosted.rss)
        return found

    def call(self, name: str, inputs: Any) -> Any:
        """The outputs for these inputs, as plain containers of NumPy arrays."""
        return plain(self.hosted[name].bind(inputs)())

    def peak(self, name: str) -> int:
        """Bytes of memory at the high-water mark of its calls, over what was there before."""
        return max(0, self.hosted[name].peak)

    def close(self, name: str) -> None:
        self.hosted.pop(name, None)
        gc.collect()


def _timed(call: Call, inner: int) -> float:
    """Mean seconds of ``inner`` calls, the garbage collector off."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(inner):
            call()
        return (time.perf_counter() - start) / inner
    finally:
        if enabled:
            gc.enable()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


def main(fd: int, parent: int) -> None:
    """Answer requests until the other end closes."""
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    channel = Channel(socket.socket(fileno=fd))
    path, threads, imports = channel.receive()
    sys.path[:] = path
    for name in imports:
        with suppress(ImportError):  # the runner that needs it says so better
            importlib.import_module(name)
    session = Session(threads)
    channel.send(("ok", os.getpid()))
    while True:
        try:
            verb, arguments = channel.receive()
        except EOFError:
            return
        try:
            reply = ("ok", getattr(session, verb)(*arguments))
        except Exception as error:  # noqa: BLE001 - every failure of a model is reported
            reply = ("error", (f"{type(error).__name__}: {error}", traceback.format_exc()))
        channel.send(reply)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
