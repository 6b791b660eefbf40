"""Whether a model fits before it is read."""

from __future__ import annotations

import psutil

from burnish.compiler.errors import ImportModelError


def check_memory(param_bytes: int, *, copies: int) -> None:
    """Refuse a model whose import holds more than the memory that is free.

    ``copies`` is how many copies of the parameters the import holds at its peak. Raises
    :class:`ImportModelError` that states both figures.
    """
    needed, free = param_bytes * copies, psutil.virtual_memory().available
    if needed > free:
        raise ImportModelError(
            f"the model is too large for memory: its parameters take {_gib(param_bytes)} and the "
            f"import about {_gib(needed)}, with {_gib(free)} free: close other programs, or use a "
            "machine with more memory"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
