"""Batch normalization at inference as numbers: one scale and one shift a channel. NumPy only."""

from __future__ import annotations

import numpy as np


def affine_form(
    gamma: np.ndarray, beta: np.ndarray, mean: np.ndarray, var: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """``gamma * (x - mean) / sqrt(var + epsilon) + beta`` as ``x * scale + shift``, in float64.

    [C] each -> scale [C], shift [C]
    """
    wide = [array.astype(np.float64).reshape(-1) for array in (gamma, beta, mean, var)]
    scale = wide[0] / np.sqrt(wide[3] + epsilon)
    return scale, wide[1] - wide[2] * scale


def scale_channels(
    weight: np.ndarray, scale: np.ndarray, channel_axis: int, groups: int = 1
) -> np.ndarray:
    """The weight with each output channel multiplied, in float64.

    ``groups`` other than 1 is for transposed convolutions, ``[I, O/groups, ...]`` with the
    output channels of group ``g`` under the input channels of group ``g``.
    """
    size = weight.shape[channel_axis]
    if groups == 1:
        along = [1] * weight.ndim
        along[channel_axis] = size
        return weight.astype(np.float64) * scale.reshape(along)
    inside = 1 - channel_axis
    rows = np.repeat(scale.reshape(groups, size), weight.shape[inside] // groups, axis=0)
    plane = rows if inside == 0 else rows.T
    return weight.astype(np.float64) * plane.reshape(*plane.shape, *[1] * (weight.ndim - 2))
