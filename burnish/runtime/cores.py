"""How many threads a model that asks for none runs on."""

from __future__ import annotations

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")


def host_threads() -> int:
    """Threads of a model that asks for none: ``$BURNISH_THREADS``, else :func:`usable_cores`.

    Raises ``ValueError`` for a variable that is no whole number of 1 or more.
    """
    given = os.environ.get("BURNISH_THREADS", "")
    if not given:
        return usable_cores()
    if not given.isdecimal() or int(given) == 0:
        raise ValueError(f"BURNISH_THREADS must be a whole number of 1 or more, got {given!r}")
    return int(given)


def usable_cores() -> int:
    """Cores this process may run on, as its affinity and its control group's quota say."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = QUOTA.read_text().split()
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no control group, or one of the first version: the affinity alone counts
    return max(1, cores)
