"""TVMScript parsed quickly, wherever it is.

For each function, Python's ``inspect`` looks for the module of every frame of the stack, in all
modules there are: a second a function where torch is loaded and imports are nested. No frame's
module is wanted, so that the search is left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def quick_parsing() -> Iterator[None]:
    """``inspect.getmodule`` knows no module of a frame."""
    original = inspect.getmodule

    def quick(value: object, filename: str | None = None) -> ModuleType | None:
        return None if inspect.isframe(value) else original(value, filename)

    vars(inspect)["getmodule"] = quick
    try:
        yield
    finally:
        vars(inspect)["getmodule"] = original
