"""Where OpenCL may be. A module of its own: every ``import tvm`` reads it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

LIBRARY = "BURNISH_OPENCL"
"""Environment variable: the OpenCL libraries to try instead of those found."""


def candidates() -> list[str]:
    """OpenCL libraries to try, in order."""
    if own := os.environ.get(LIBRARY):
        return own.split(os.pathsep)
    intel = Path(sys.prefix) / "lib" / "libintelocl.so"
    return ["libOpenCL.so.1", "libOpenCL.so", *([str(intel)] if intel.is_file() else [])]
