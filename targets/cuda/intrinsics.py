"""TVM's tensor intrinsics for CUDA, imported when a kernel wants them, and quickly.

That import parses 200 functions of TVMScript, and for each of them Python's ``inspect`` looks for
the module of every frame of the stack, in all modules there are: minutes where torch is loaded
and imports are nested. No frame's module is wanted, so that the search is left out.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@functools.cache
def cuda_intrinsics() -> ModuleType:
    """The module ``tvm.s_tir.tensor_intrin.cuda``."""
    with _no_modules_of_frames():
        from tvm.s_tir.tensor_intrin import cuda
    return cuda


@contextmanager
def _no_modules_of_frames() -> Iterator[None]:
    """``inspect.getmodule`` knows no module of a frame."""
    original = inspect.getmodule

    def quick(value: object, filename: str | None = None) -> ModuleType | None:
        return None if inspect.isframe(value) else original(value, filename)

    vars(inspect)["getmodule"] = quick
    try:
        yield
    finally:
        vars(inspect)["getmodule"] = original
