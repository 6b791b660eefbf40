"""Floating-point weights of two bytes: what they are called, made of, and how they are packed.

``float16`` holds magnitudes from 6e-8 to 65504 with 11 bits of precision, ``bfloat16`` those of
float32 with 8 bits. Numbers are rounded to nearest, ties to even.
"""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
from tvm import te
from tvm.ir import Expr

from burnish.passes.packed import PackedWeight, in_blocks

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
HALVES = frozenset(DTYPES)


def narrowed(weight: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """``weight`` rounded to ``dtype``; infinities and NaN are kept.

    Raises ``ValueError`` for a finite number that ``dtype`` holds no number near to.
    """
    with np.errstate(over="ignore"):
        small = weight.astype(DTYPES[dtype])
    lost = np.isfinite(weight) & ~np.isfinite(small.astype(np.float32))
    if lost.any():
        largest = float(np.abs(weight[lost]).max())
        raise ValueError(
            f"weight {name!r} {list(weight.shape)} holds {largest:.6g}, which {dtype} cannot: its "
            f"largest number is {float(ml_dtypes.finfo(DTYPES[dtype]).max):.6g}; scale the weight "
            'down, or keep precision="fp32"'
        )
    return small


def pack_pairs(weight: np.ndarray, width: int) -> PackedWeight:
    """[N, *outer, K] of two bytes -> [ceil(N / NB), *outer, ceil(K / 2), NB * 2], zeros added.

    Neighbours along ``K`` are neighbours in memory, as dot instructions take them.
    """
    channels, *outer_shape, depth = weight.shape
    if depth % 2:
        zeros = np.zeros((channels, *outer_shape, 1), weight.dtype)
        weight = np.concatenate([weight, zeros], axis=-1)
    pairs = weight.reshape(channels, *outer_shape, -1, 2)
    array = np.ascontiguousarray(np.swapaxes(in_blocks(pairs, width), -1, -2))
    array = array.reshape(*array.shape[:-2], width * 2)

    def value(
        tensors: Sequence[te.Tensor],
        block: Expr,
        outer: Sequence[Expr],
        element: Expr,
        code: Expr,
        lane: Expr,
    ) -> Expr:
        return tensors[0](block, *outer, element, lane * 2 + code).astype("float32")

    return PackedWeight({"": array}, width, channels, depth, 2, value)
