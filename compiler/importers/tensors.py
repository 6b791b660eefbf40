"""Tensors and dtypes between torch, NumPy and TVM."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch
import tvm


def torch_dtype(dtype: torch.dtype) -> str:
    """``torch.float32`` -> ``float32``."""
    return str(dtype).removeprefix("torch.")


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The values on the CPU, without a copy where they lie there already."""
    plain = tensor.detach().cpu()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    if plain.dtype is torch.bfloat16:
        return plain.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return plain.contiguous().numpy()


def to_tvm(tensor: torch.Tensor) -> tvm.runtime.Tensor:
    """A copy: what is done to the torch tensor later does not change the imported weight."""
    return tvm.runtime.tensor(to_numpy(tensor))
