"""Resize of all modes, axis by axis; and Upsample, which is an older Resize."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.compiler.importers.onnx.emit import const, kernel, ranked
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.onnx.resampling import (
    Axis,
    Resampling,
    linear_places,
    nearest_place,
    table,
)


@converts("Resize", since=10)
def resize(node: Node) -> Result:
    """Scales and sizes may be known numbers, or sizes computed from open ones.

    Whole enlargements of images by linear interpolation are TVM's ``resize2d``.
    """
    attrs, old = node.attrs, node.version < 11
    how = Resampling(
        mode=str(attrs.get("mode", "nearest")),
        coordinates="asymmetric"
        if old
        else str(attrs.get("coordinate_transformation_mode", "half_pixel")),
        nearest="floor" if old else str(attrs.get("nearest_mode", "round_prefer_floor")),
        cubic_a=float(attrs.get("cubic_coeff_a", -0.75)),
        exclude_outside=bool(attrs.get("exclude_outside", 0)),
        antialias=bool(attrs.get("antialias", 0)),
    )
    return _resized(node, how, _axes(node, how, 1 if old else 2, None if old else 3))


@converts("Upsample")
def upsample(node: Node) -> Result:
    """As Resize with ``asymmetric`` coordinates."""
    how = Resampling(
        mode=str(node.attrs.get("mode", "nearest")), coordinates="asymmetric", nearest="floor"
    )
    return _resized(node, how, _axes(node, how, 1, None))


def _axes(node: Node, how: Resampling, scales_at: int, sizes_at: int | None) -> dict[int, Axis]:
    """The axes that change."""
    shape = ranked(node)
    rank = len(shape)
    axes = [int(a) % rank for a in node.attrs.get("axes") or range(rank)]
    roi = _roi(node, how, len(axes))
    scales = node.attrs.get("scales")
    if node.input(scales_at) is not None:
        known = node.value(scales_at)
        if known is None:
            raise Refused(
                "its scales must be known at import: make them an initializer, or give their "
                "value as example input"
            )
        scales = known.ravel().tolist()
    targets: list[Any]
    if scales:
        scales = [float(s) for s in scales]
        targets = [_scaled(shape[a], s) for a, s in zip(axes, scales, strict=True)]
    else:
        sizes = None if sizes_at is None else node.sizes(sizes_at)
        if sizes is None:
            raise Refused(
                "its sizes must be known at import, or be computed from sizes of tensors: make "
                "them an initializer, or give their value as example input"
            )
        targets = sizes.ravel().tolist()
        scales, targets = _ratios(node, [shape[a] for a in axes], targets)
    found = {}
    for place, axis in enumerate(axes):
        part = None if roi is None else (roi[place], roi[place + len(axes)])
        one = Axis(shape[axis], targets[place], scales[place], part)
        same = isinstance(one.scale, float) and abs(one.scale - 1) < 1e-9
        if not (same and _equal(one.size, one.target) and part in (None, (0.0, 1.0))):
            found[axis] = one
    return found


def _roi(node: Node, how: Resampling, count: int) -> list[float] | None:
    if how.coordinates != "tf_crop_and_resize":
        return None
    value = node.value(1)
    if value is None or value.size != 2 * count:
        raise Refused("its roi must be known at import")
    return [float(v) for v in value.ravel()]


def _ratios(
    node: Node, sizes: Sequence[Any], targets: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Scale of each axis, and its target under the aspect ratio policy."""
    policy = str(node.attrs.get("keep_aspect_ratio_policy", "stretch"))
    known = all(isinstance(n, int) for n in (*sizes, *targets))
    if policy == "stretch":
        return [_ratio(a, b) for a, b in zip(sizes, targets, strict=True)], list(targets)
    if not known:
        raise Refused(f"keep_aspect_ratio_policy={policy} with open sizes")
    pick = min if policy == "not_larger" else max
    scale = pick(b / a for a, b in zip(sizes, targets, strict=True))
    return [scale] * len(sizes), [int(scale * n + 0.5) for n in sizes]


def _ratio(size: Any, target: Any) -> Any:
    if isinstance(size, int) and isinstance(target, int):
        return target / size if size else 1.0
    wide = [
        tirx.const(n, "float64") if isinstance(n, int) else n.astype("float64")
        for n in (size, target)
    ]
    return wide[1] / wide[0]


def _scaled(size: Any, scale: float) -> Any:
    """``floor(size * scale)``; in float32, as ONNX's shape inference and ONNX Runtime have it."""
    if isinstance(size, int):
        return int(np.floor(np.float32(size) * np.float32(scale)))
    exact = Fraction(scale)
    if exact.denominator > 64:
        raise Refused(f"the scale {scale} of an open size: give sizes, or a fraction like 0.5 or 2")
    if exact.denominator == 1:
        return size * exact.numerator
    return tirx.floordiv(size * exact.numerator, exact.denominator)


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b) if isinstance(a, int) and isinstance(b, int) else a is b


def _resized(node: Node, how: Resampling, axes: dict[int, Axis]) -> Result:
    x, dtype = node.inputs[0], node.dtype()
    if how.mode not in ("nearest", "linear", "cubic"):
        raise Refused(f"mode={how.mode}")
    if not axes:
        return x
    if _is_image(node, how, axes):
        return _resize2d(node, how, axes)
    work = dtype if how.mode == "nearest" else "float64" if dtype == "float64" else "float32"
    for axis, one in axes.items():
        x = _along(node, how, x, axis, one, work)
    if str(x.ty.dtype) == dtype:
        return x
    return _rounded(node, x, dtype)


def _rounded(node: Node, x: relax.Expr, dtype: str) -> relax.Expr:
    if "int" not in dtype:
        return relax.op.astype(x, dtype)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)

    def make(t: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Expr:
            value = tirx.nearbyint(t(*at))
            top, bottom = (tirx.const(float(n), str(t.dtype)) for n in (high, low))
            return tirx.max(tirx.min(value, top), bottom).astype(dtype)

        return te.compute(t.shape, element, name="round")

    return kernel(node, make, x, name="round")


def _is_image(node: Node, how: Resampling, axes: dict[int, Axis]) -> bool:
    """Whether TVM's ``resize2d`` gives the same: whole enlargements, linear."""
    plain = how.coordinates in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
    return (
        node.ndim() == 4
        and node.dtype() == "float32"
        and how.mode == "linear"
        and plain
        and not how.exclude_outside
        and not how.antialias
        and all(
            axis > 1
            and isinstance(one.size, int)
            and isinstance(one.target, int)
            and one.size > 1
            and one.target % one.size == 0
            for axis, one in axes.items()
        )
    )


def _resize2d(node: Node, how: Resampling, axes: dict[int, Axis]) -> relax.Expr:
    shape = ranked(node)
    size = [axes[a].target if a in axes else shape[a] for a in (2, 3)]
    return relax.op.image.resize2d(
        node.inputs[0],
        relax.ShapeExpr(size),
        layout="NCHW",
        method="linear",
        coordinate_transformation_mode=how.coordinates,
    )


def _along(
    node: Node, how: Resampling, x: relax.Expr, axis: int, one: Axis, work: str
) -> relax.Expr:
    """``x`` resized along one axis, in the type ``work``."""
    if not (isinstance(one.size, int) and isinstance(one.target, int)):
        return _along_open(node, how, x, axis, one, work)
    places, weights, outside = table(how, one)
    taps = places.shape[1]
    extra = tirx.const(float(node.attrs.get("extrapolation_value", 0.0)), work)

    def make(t: te.Tensor, p: te.Tensor, *w: te.Tensor) -> te.Tensor:
        shape = [*t.shape[:axis], one.target, *t.shape[axis + 1 :]]

        def element(*at: Any) -> Expr:
            def read(k: int) -> Expr:
                return t(*at[:axis], p(at[axis], k), *at[axis + 1 :]).astype(work)

            value = read(0)
            if w:
                value = value * w[0](at[axis], 0)
                for k in range(1, taps):
                    value = value + read(k) * w[0](at[axis], k)
            if outside.any():
                value = tirx.Select(p(at[axis], taps) != 0, extra, value)
            return value

        return te.compute(shape, element, name="resize")

    packed = np.concatenate([places, outside[:, None]], 1).astype(np.int32)
    given = [const(packed, "int32")]
    if how.mode != "nearest":
        given.append(const(weights, work))
    return kernel(node, make, x, *given, name="resize")


def _along_open(
    node: Node, how: Resampling, x: relax.Expr, axis: int, one: Axis, work: str
) -> relax.Expr:
    if how.mode == "cubic" or how.antialias or how.coordinates == "tf_crop_and_resize":
        raise Refused(f"mode={how.mode} over open sizes: fix the sizes of its input")
    if how.exclude_outside and how.mode == "linear":
        raise Refused("exclude_outside over open sizes: fix the sizes of its input")

    def make(t: te.Tensor) -> te.Tensor:
        shape = [*t.shape[:axis], one.target, *t.shape[axis + 1 :]]
        local = Axis(t.shape[axis], one.target, one.scale)

        def element(*at: Any) -> Expr:
            def read(place: Expr) -> Expr:
                return t(*at[:axis], place, *at[axis + 1 :]).astype(work)

            if how.mode == "nearest":
                return read(nearest_place(how, local, at[axis]))
            low, high, weight = linear_places(how, local, at[axis])
            second = weight.astype(work)
            return read(low) * (tirx.const(1, work) - second) + read(high) * second

        return te.compute(shape, element, name="resize")

    return kernel(node, make, x, name="resize")
