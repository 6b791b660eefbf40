"""TVM's own pool of threads, which runs what is not linked with ours: calibration, host code."""

from __future__ import annotations

import os


def set_threads() -> None:
    """Let TVM's pool use every core this process may run on, bound to none.

    TVM would take half of them, and bind both threads of a two-core machine to one; it reads
    these variables once, when its pool starts, so that this comes before code of TVM's runs.
    Values set by the user win.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    os.environ.setdefault("TVM_NUM_THREADS", str(max(1, cores)))
    os.environ.setdefault("TVM_BIND_THREADS", "0")
