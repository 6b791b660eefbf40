"""A model over sets of cores whose regions are all on one of them: its caller runs it there."""

from __future__ import annotations

import ctypes
import os
import time
import weakref
from collections.abc import Callable

import tvm

from burnish.compiler.on_cores import RegionError
from burnish.runtime import threads
from burnish.targets.core_sets import bind
from burnish.targets.hetero import Place

LONG_S = 200e-6
"""Binding a thread and letting it go takes 4 microseconds. A call like the one before it, if that
took less than this, is bound only where it would begin on another core: the system hardly moves
one so short."""


class OnOneSet:
    """Keeps the calling thread on a set's cores while a call runs, its loops on as many threads.

    For one call at a time. Afterwards the thread may run where it could before.
    """

    def __init__(self, library: tvm.runtime.Module, place: Place) -> None:
        self._name, self._cores = place.name, frozenset(place.cores)
        self._use_threads = threads.adopt(library)
        self._own_pool, self._lend = threads.own_pool(library), threads.lend_pool(library)
        self._pool = 0
        self._long = False
        self._before: set[int] | None = None
        self._began = 0.0
        self._core = _core_now()

    def enter(self, _threads: int) -> None:
        """Before a call; :class:`RegionError` where the cores cannot be used."""
        self._began = time.perf_counter()
        several = len(self._cores) > 1  # threads of its pool start on the cores of their caller
        if several or self._long or self._core() not in self._cores:
            before = os.sched_getaffinity(0)
            try:
                bind(self._cores)
            except ValueError as error:
                raise RegionError(f"{self._name}: {error}", stage="run") from error
            self._before = before
        self._use_threads(len(self._cores))
        if several:
            self._take_pool()

    def leave(self) -> None:
        """After a call, or where :meth:`enter` failed."""
        self._long = time.perf_counter() - self._began > LONG_S
        if self._pool:
            self._lend(0)
        if self._before is not None:
            os.sched_setaffinity(0, self._before)
            self._before = None

    def _take_pool(self) -> None:
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


def _core_now() -> Callable[[], int]:
    try:
        return ctypes.CDLL(None).sched_getcpu
    except (AttributeError, OSError):
        return lambda: -1


__all__ = ["OnOneSet"]
