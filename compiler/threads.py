"""Threads of compiled code: one pool for all libraries of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable

import tvm

from burnish.targets.cpu import pool

_lock = threading.Lock()
_lender: tvm.runtime.Module | None = None
"""The library whose pool all run on; kept, since its threads run its code."""
_address = 0
_ANY_CORE = -3


def adopt(library: tvm.runtime.Module) -> Callable[[int], object]:
    """Let a loaded library run its loops on this process's pool.

    The result sets how many threads the loops of the library may use.
    """
    global _lender, _address
    if not pool.AVAILABLE:
        return tvm_threads
    join = library.get_function(pool.JOIN, query_imports=True)
    with _lock:
        address = int(join(_address))
        if _lender is None:
            _lender, _address = library, address
    return library.get_function(pool.THREADS, query_imports=True)


def tvm_threads(threads: int) -> None:
    """Give TVM's pool this many threads: it is what libraries run on where ours is not written."""
    tvm.get_global_func("runtime.config_threadpool")(_ANY_CORE, threads)
