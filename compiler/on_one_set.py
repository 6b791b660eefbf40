"""A model over sets of cores whose regions are all on one of them: its caller runs it there."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable

import tvm

from burnish.compiler.on_cores import RegionError
from burnish.runtime import threads
from burnish.targets.core_sets import bind
from burnish.targets.hetero import Place

SHORT_S = 200e-6
"""Binding a thread and letting it go takes 4 microseconds. A model of one core whose calls take
less than this is bound only where it would begin on another core: the system hardly moves a thread
in the middle of one so short."""
TIMED = 8
"""Calls by which a model is found to be short; the first ones also record and allocate."""


class OnOneSet:
    """Keeps the calling thread on a set's cores while a call runs, its loops on as many threads.

    For one call at a time. Afterwards the thread may run where it could before. ``settled`` says
    that every call runs the same kernels.
    """

    def __init__(self, library: tvm.runtime.Module, place: Place, *, settled: bool) -> None:
        self._name, self._cores = place.name, frozenset(place.cores)
        self._first = place.cores[0]
        self._use_threads = threads.adopt(library)
        self._on_core = threads.on_core(library)
        self._own_pool, self._lend = threads.own_pool(library), threads.lend_pool(library)
        self._pool = 0
        self._to_time = TIMED if settled and len(self._cores) == 1 else 0
        self._short = False
        self._before: set[int] | None = None
        self._began = 0.0

    def enter(self, _threads: int) -> None:
        """Before a call; :class:`RegionError` where the cores cannot be used."""
        if self._short and self._on_core(self._first):
            return
        self._bind()
        self._use_threads(len(self._cores))
        if len(self._cores) > 1:
            self._take_pool()
        self._began = time.perf_counter()

    def leave(self) -> None:
        """After a call, or where :meth:`enter` failed."""
        if self._before is None:
            return
        if self._to_time and not self._short:
            self._to_time -= 1
            self._short = time.perf_counter() - self._began < SHORT_S
        if self._pool:
            self._lend(0)
        before, self._before = self._before, None
        os.sched_setaffinity(0, before)

    def _bind(self) -> None:
        before = os.sched_getaffinity(0)
        try:
            bind(self._cores)
        except ValueError as error:
            raise RegionError(f"{self._name}: {error}", stage="run") from error
        self._before = before

    def _take_pool(self) -> None:
        """Threads of the pool start with a loop, on the cores that its caller is bound to."""
        if self._pool:
            self._lend(self._pool)
            return
        self._pool = int(self._own_pool(len(self._cores)) or 0)  # type: ignore[call-overload]
        if self._pool:
            weakref.finalize(self, _give_up, self._lend, self._own_pool, self._pool)


def _give_up(
    lend: Callable[[int], object], own_pool: Callable[[int], object], address: int
) -> None:
    """End a pool's threads, whichever thread this is."""
    lend(address)
    own_pool(0)


__all__ = ["OnOneSet"]
