"""Sets of CPU cores as devices: ``cpu@0``, ``cpu@0-3``, ``cpu@0+2``."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

MOST_CORES = 8192
"""Cores of a machine: as many as Linux counts."""
FORM = "cpu, or cores of it by number: cpu@0, cpu@0-3, cpu@0+2 or cpu@0,2"
_SET = re.compile(r"cpu(?:@(\d+(?:-\d+)?(?:[,+]\d+(?:-\d+)?)*))?")


def parse_cores(text: str) -> tuple[int, ...]:
    """``cpu@0-2+5`` -> its cores in that order; none for ``cpu``, which is bound to none.

    ``ValueError`` for any other text, and for a set that names no core, or one twice, or a range
    that ends before it starts.
    """
    match = _SET.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r:.80} is none of {FORM}")
    cores: list[int] = []
    for part in re.split("[,+]", match[1] or ""):
        first, _, last = part.partition("-")
        if part:
            if int(last or first) >= MOST_CORES:
                raise ValueError(f"{text!r:.80} has a core past {MOST_CORES - 1}, the last of all")
            if int(last or first) < int(first):
                raise ValueError(f"{text!r:.80} names no core with {part}; {FORM}")
            cores.extend(range(int(first), int(last or first) + 1))
    if match[1] and (not cores or len(set(cores)) != len(cores)):
        raise ValueError(f"{text!r:.80} names no core, or one twice; {FORM}")
    return tuple(cores)


def usable() -> set[int]:
    """The cores that this process may run on; none where the system does not tell."""
    return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set()


def bind(cores: Collection[int]) -> None:
    """Keep the calling thread, and those that it starts later, on these cores.

    ``ValueError`` where that cannot be, and where there are not all of them.
    """
    try:
        os.sched_setaffinity(0, cores)
        kept = os.sched_getaffinity(0)
    except (AttributeError, OSError) as error:
        raise ValueError(f"cannot run on the cores {sorted(cores)}: {error}") from error
    if kept != set(cores):
        raise ValueError(f"there are no cores {sorted(set(cores) - kept)} to run on")


__all__ = ["FORM", "MOST_CORES", "bind", "parse_cores", "usable"]
