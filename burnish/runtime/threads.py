"""Threads of compiled code: one pool for all libraries of this process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import tvm_ffi

AVAILABLE = sys.platform == "linux"
"""Whether the pool is written for this system; elsewhere libraries keep TVM's."""
JOIN, THREADS = "burnish_join_pool", "burnish_threads"
"""Functions of a library that set its pool and its threads."""
OWN, LEND = "burnish_own_pool", "burnish_lend_pool"
"""Functions of a library that make a pool of the calling thread's own, and that set which is."""
ON_CORE = "burnish_on_core"
"""A function of a library that has its loops run on one thread, and knows the caller's core."""

_lock = threading.Lock()
_lender: Any = None
"""The library whose pool all run on; kept, since its threads run its code."""
_address = 0
_ANY_CORE = -3


def adopt(library: Any) -> Callable[[int], object]:
    """Let a loaded library run its loops on this process's pool.

    The result sets how many threads the loops of the library may use.
    """
    global _lender, _address
    if not AVAILABLE:
        return tvm_threads
    join = library.get_function(JOIN, query_imports=True)
    with _lock:
        address = int(join(_address))
        if _lender is None:
            _lender, _address = library, address
    return library.get_function(THREADS, query_imports=True)


def own_pool(library: Any) -> Callable[[int], object]:
    """What gives the calling thread a pool of its own, of so many threads, itself among them.

    Loops of ``library`` that the thread launches run there. The other threads start with the first
    loop, on the cores that the thread is bound to by then. With 0 the pool goes, before the thread
    does. Gives the pool's address. Where our pool is not written, TVM's is one a thread anyhow, and
    this does nothing.
    """
    return library.get_function(OWN, query_imports=True) if AVAILABLE else _nothing


def lend_pool(library: Any) -> Callable[[int], object]:
    """What puts the calling thread's loops on the pool at an address, as :func:`own_pool` gave it.

    With 0 the thread has none of its own again, and the pool waits for the next one.
    """
    return library.get_function(LEND, query_imports=True) if AVAILABLE else _nothing


def on_core(library: Any) -> Callable[[int], object]:
    """What has the loops of a library run on one thread, and tells whether the caller is on a core.

    Where our pool is not written it is on none that is known.
    """
    return library.get_function(ON_CORE, query_imports=True) if AVAILABLE else _nothing


def _nothing(_: int) -> int:
    return 0


def tvm_threads(threads: int) -> None:
    """Give TVM's pool this many threads: it is what libraries run on where ours is not written."""
    tvm_ffi.get_global_func("runtime.config_threadpool")(_ANY_CORE, threads)
