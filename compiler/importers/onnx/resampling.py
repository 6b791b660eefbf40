"""Resize along one axis: where each output element lies in the input, and with what weights.

The formulas are those of ONNX's reference (onnx/reference/ops/op_resize.py), as tables in
float64 where both sizes are known, and as TIR expressions where they are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir import Expr


@dataclass(frozen=True)
class Resampling:
    """How all axes of one Resize are sampled; fields are the operator's attributes."""

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis: sizes (ints, or expressions where open), scale, part of the input taken."""

    size: Any
    target: Any
    scale: Any
    roi: tuple[float, float] | None = None


def table(how: Resampling, axis: Axis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``places [O, K], weights [O, K], outside [O]`` of an axis whose sizes are known."""
    x = np.broadcast_to(
        np.asarray(_coordinate(how, axis, np.arange(axis.target, dtype=np.float64)), np.float64),
        (axis.target,),
    )
    outside = np.zeros(axis.target, bool)
    if how.coordinates == "tf_crop_and_resize":
        outside = (x < 0) | (x > axis.size - 1)
    if how.mode == "nearest":
        places = {
            "round_prefer_floor": np.ceil(x - 0.5),
            "round_prefer_ceil": np.floor(x + 0.5),
            "floor": np.floor(x),
            "ceil": np.ceil(x),
        }[how.nearest][:, None]
        weights = np.ones_like(places)
    else:
        # At a place that is whole, the one to its left counts as the first neighbour.
        first = np.ceil(x) - 1
        ratio = x - first
        places, weights = _taps(how, float(axis.scale), first, ratio)
    if how.exclude_outside:
        weights = np.where((places < 0) | (places > axis.size - 1), 0.0, weights)
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    places = np.clip(places, 0, axis.size - 1).astype(np.int32)
    return places, weights, outside


def _taps(
    how: Resampling, scale: float, first: np.ndarray, ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours and weights; ``ratio`` in (0, 1] is the distance from ``first``."""
    reach = 1 if how.mode == "linear" else 2
    squeeze = min(scale, 1.0) if how.antialias else 1.0
    start = int(np.floor(-reach / squeeze) + 1)
    steps = np.arange(start, 2 - start if how.mode == "cubic" or how.antialias else 2)
    if how.mode == "linear":
        steps = np.arange(start, 2 - start)
    distance = np.abs((steps[None, :] - ratio[:, None]) * squeeze)
    if how.mode == "linear":
        weights = np.clip(1 - distance, 0, 1)
    else:
        weights = _cubic(distance, how.cubic_a)
    if how.antialias:
        weights = weights / weights.sum(1, keepdims=True)
    return first[:, None] + steps[None, :], weights


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel (IEEE Trans. ASSP 29, 1981)."""
    d, d2, d3 = distance, distance**2, distance**3
    near = (a + 2) * d3 - (a + 3) * d2 + 1
    far = a * d3 - 5 * a * d2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def nearest_place(how: Resampling, axis: Axis, o: Expr) -> Expr:
    """The nearest input element to the output element ``o``, as int64, inside the input."""
    x = _coordinate(how, axis, o.astype("float64"))
    half = tirx.const(0.5, "float64")
    place = {
        "round_prefer_floor": lambda: tirx.ceil(x - half),
        "round_prefer_ceil": lambda: tirx.floor(x + half),
        "floor": lambda: tirx.floor(x),
        "ceil": lambda: tirx.ceil(x),
    }[how.nearest]()
    return _inside(place, axis.size)


def linear_places(how: Resampling, axis: Axis, o: Expr) -> tuple[Expr, Expr, Expr]:
    """Both neighbours of the output element ``o``, and the weight of the second (float64)."""
    x = _coordinate(how, axis, o.astype("float64"))
    low = tirx.floor(x)
    one = tirx.const(1, "float64")
    return _inside(low, axis.size), _inside(low + one, axis.size), x - low


def _inside(place: Expr, size: Any) -> Expr:
    zero = tirx.const(0, "int64")
    return tirx.max(tirx.min(place.astype("int64"), _wide(size) - 1), zero)


def _wide(size: Any) -> Expr:
    return tirx.const(size, "int64") if isinstance(size, int) else size


def _coordinate(how: Resampling, axis: Axis, o: Any) -> Any:
    """Where the output element ``o`` (floats) lies in the input."""
    size, target, scale = axis.size, axis.target, axis.scale
    symbolic = not (isinstance(size, int) and isinstance(target, int))
    if symbolic:
        size, target = (_wide(n).astype("float64") for n in (size, target))
    width = scale * size
    half = 0.5
    match how.coordinates:
        case "asymmetric":
            return o / scale
        case "half_pixel":
            return (o + half) / scale - half
        case "pytorch_half_pixel":
            plain = (o + half) / scale - half
            if symbolic:
                return tirx.Select(width == tirx.const(1, "float64"), 0 * o - half, plain)
            return -half if width == 1 else plain
        case "half_pixel_symmetric":
            return size / 2 * (1 - target / width) + (o + half) / scale - half
        case "align_corners":
            if symbolic:
                one = tirx.const(1, "float64")
                last = tirx.Select(width == one, one, width - one)
                return tirx.Select(width == one, 0 * o, o * (size - one) / last)
            return 0.0 if width == 1 else o * (size - 1) / (width - 1)
        case "tf_crop_and_resize":
            start, end = axis.roi or (0.0, 1.0)
            if symbolic:
                raise NotImplementedError("tf_crop_and_resize over open sizes")
            if width == 1:
                return (end - start) * (size - 1) / 2 + start * (size - 1)
            return o * (end - start) * (size - 1) / (width - 1) + start * (size - 1)
    raise NotImplementedError(f"coordinate_transformation_mode={how.coordinates}")
