"""What a compiled model takes and returns; shared with the runtime that loads it elsewhere."""

from __future__ import annotations

from burnish.runtime.signature import Dim, Signature, TensorSpec, dtype_name, evaluate

__all__ = ["Dim", "Signature", "TensorSpec", "dtype_name", "evaluate"]
