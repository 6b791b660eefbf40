"""Whether the machine was ours: CPU use of other processes, and pools that still spin."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import psutil

TICK_S = 0.01
"""The system's CPU accounting step: differences of a few steps mean nothing."""


def _busy() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    return sum(times[:8]) - idle  # guest times, past the eighth, are counted in user already


def _cpu_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


class LoadMeter:
    """Cores in use by processes other than ``pids`` since this was made."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.pids = tuple(pids)
        self.start, self.busy, self.own = self._read()

    def _read(self) -> tuple[float, float, float]:
        return time.perf_counter(), _busy(), sum(_cpu_seconds(pid) for pid in self.pids)

    def others(self) -> float:
        """Mean cores used by others; 0 below what the system's accounting can tell."""
        now, busy, own = self._read()
        used = (busy - self.busy) - (own - self.own)
        return max(0.0, used / (now - self.start)) if used >= 4 * TICK_S else 0.0


def _task_ns(pid: int) -> int | None:
    """Nanoseconds all threads of a process have run; None where the system does not tell."""
    total = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                total += int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return total


def wait_asleep(pids: Iterable[int], *, limit_s: float = 1.0, blind_s: float = 0.25) -> bool:
    """Wait until no thread of ``pids`` runs: pools spin at their barriers after a call.

    True when they sleep; False when ``limit_s`` passed first. Where threads cannot be watched,
    waits ``blind_s``.
    """
    pids = tuple(pids)
    deadline = time.perf_counter() + limit_s
    before = [_task_ns(pid) for pid in pids]
    while True:
        if None in before:
            time.sleep(blind_s)
            return True
        time.sleep(0.004)
        after = [_task_ns(pid) for pid in pids]
        if None not in after and sum(b - a for a, b in zip(before, after, strict=True)) < 200_000:  # type: ignore[operator, misc]
            return True
        if time.perf_counter() > deadline:
            return False
        before = after
