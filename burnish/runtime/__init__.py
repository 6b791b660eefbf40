"""Loading and running artifacts, with NumPy and tvm-ffi alone.

This package is two: ``burnish.runtime`` inside the compiler's distribution, whose loader shares
what reads and checks a file, and ``burnish_runtime`` in the distribution of that name, which
carries TVM's runtime library along and needs neither TVM nor torch::

    import burnish_runtime

    model = burnish_runtime.load("net.burnish")
    y = model(x)  # NumPy arrays
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ArtifactError, BurnishError, InvalidInputError

if TYPE_CHECKING:
    from .model import Model, load


def __getattr__(name: str) -> Any:
    if name in ("Model", "load"):
        from . import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["ArtifactError", "BurnishError", "InvalidInputError", "Model", "load"]
