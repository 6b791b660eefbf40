"""What must be right before TVM starts: its versions, and its threads.

The front door calls both functions before anything imports TVM.
"""

from __future__ import annotations

import os
from importlib import metadata

from burnish.runtime.pins import PINS


def check_versions() -> None:
    """Raise ``ImportError`` unless TVM and its FFI are the pair that works.

    Their metadata allow newer FFI releases, which crash the process in serialization.
    """
    found: dict[str, str] = {}
    for name in PINS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    wrong = {name: version for name, version in found.items() if version != PINS[name]}
    if wrong:
        have = ", ".join(f"{name} {version}" for name, version in found.items())
        want = " ".join(f"{name}=={version}" for name, version in PINS.items())
        raise ImportError(
            f"burnish needs {want}: other pairs crash in serialization; found {have}. "
            f"Run: pip install {want}"
        )


def set_threads() -> None:
    """Let TVM's pool use every core this process may run on, bound to none.

    TVM would take half of them, and bind both threads of a two-core machine to one; it reads
    these variables once, when its pool starts. Values set by the user win.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    os.environ.setdefault("TVM_NUM_THREADS", str(max(1, cores)))
    os.environ.setdefault("TVM_BIND_THREADS", "0")


__all__ = ["PINS", "check_versions", "set_threads"]
