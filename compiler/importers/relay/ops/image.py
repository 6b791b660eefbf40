"""Images: resizing, cropping, sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax, topi

from burnish.compiler.importers.relay.context import (
    Attributes,
    Context,
    Converter,
    Value,
    dtype_of,
    fixed_shape,
    rank_of,
    shape_of,
    tensor,
)
from burnish.compiler.importers.relay.graph import RelayError
from burnish.compiler.importers.relay.layouts import transform

op = relax.op
DATA = {1: "NCW", 2: "NCHW", 3: "NCDHW"}


def resized(
    ctx: Context, x: relax.Expr, size: Sequence[Any], a: Attributes, rank: int
) -> relax.Expr:
    """Resize with Relay's attributes; a floating-point result has the input's dtype."""
    layout = a.layout
    x = transform(ctx, x, layout, DATA[rank])
    if rank == 2 and a.method == "nearest_neighbor":
        return transform(ctx, _nearest2d(ctx, x, size, a), DATA[2], layout)
    roi = [float(n) for n in a.get("roi") or [0.0] * (2 * rank)]
    options = (
        a.method,
        a.coordinate_transformation_mode,
        _rounding(a),
        a.cubic_alpha,
        a.cubic_exclude,
        a.extrapolation_value,
    )
    dtype = a.get("out_dtype") or dtype_of(x)
    if rank == 2 and options[1] != "tf_crop_and_resize":
        found = ctx.emit(
            op.image.resize2d(x, relax.ShapeExpr(list(size)), roi, DATA[2], *options, dtype)
        )
    else:
        function = getattr(topi.image, f"resize{rank}d")
        found = ctx.te(
            function, x, roi, list(size), DATA[rank], *options, dtype, name=f"resize{rank}d"
        )
    return transform(ctx, found, DATA[rank], layout)


def _rounding(a: Attributes) -> str:
    """TVM 0.19 rounded halves up here, where ``round`` now rounds them to even."""
    given = a.get("rounding_method") or ""
    if given == "" and a.method == "nearest_neighbor":
        given = "round" if a.coordinate_transformation_mode == "align_corners" else "floor"
    return "round_prefer_ceil" if given == "round" else given


def _nearest2d(ctx: Context, x: relax.Expr, size: Sequence[Any], a: Attributes) -> relax.Expr:
    """One axis after the other where they round differently.

    With ``asymmetric`` coordinates, TVM 0.19 took the floor along an axis that grows by a whole
    factor, whatever the rounding.
    """
    mode, rounding = a.coordinate_transformation_mode, _rounding(a)
    old, dtype = shape_of(x)[2:], a.get("out_dtype") or dtype_of(x)
    floors = [mode == "asymmetric" and _whole_factor(n, m) for n, m in zip(old, size, strict=True)]
    ways = ["floor" if floor else rounding for floor in floors]
    steps = [(list(size), ways[0])]
    if ways[0] != ways[1]:
        steps = [([size[0], old[1]], ways[0]), (list(size), ways[1])]
    roi = [float(n) for n in a.get("roi") or [0.0] * 4]
    for target, way in steps:
        shape = relax.ShapeExpr(target)
        x = ctx.emit(op.image.resize2d(x, shape, roi, "NCHW", a.method, mode, way, out_dtype=dtype))
    return x


def _whole_factor(old: Any, new: Any) -> bool:
    return isinstance(old, int) and isinstance(new, int) and new % old == 0


def _resize(rank: int) -> Converter:
    return lambda ctx, args, a: resized(ctx, tensor(args[0]), list(a.size), a, rank)


def _upsampling(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return upsampled(ctx, tensor(args[0]), a.scale_h, a.scale_w, a)


def upsampled(ctx: Context, x: relax.Expr, scale_h: float, scale_w: float, a: Attributes) -> Value:
    """Both axes times their scale, rounded."""
    shape = shape_of(x)
    layout = a.layout
    if rank_of(x) != 4 or not all(isinstance(shape[layout.index(c)], int) for c in "HW"):
        raise RelayError("images of open height or width cannot be upsampled")
    return ctx.te(
        topi.nn.upsampling,
        x,
        float(scale_h),
        float(scale_w),
        layout,
        a.get("method", "nearest_neighbor"),
        bool(a.get("align_corners")),
        name="upsampling",
    )


def _upsampling3d(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    fixed_shape(args[0])
    return ctx.te(
        topi.nn.upsampling3d,
        tensor(args[0]),
        a.scale_d,
        a.scale_h,
        a.scale_w,
        a.layout,
        a.method,
        a.coordinate_transformation_mode,
        name="upsampling3d",
    )


def _crop_and_resize(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, boxes, index = (tensor(v) for v in args)
    return ctx.te(
        topi.image.crop_and_resize,
        x,
        boxes,
        index,
        list(a.ints("crop_size")),
        a.layout,
        a.method,
        a.extrapolation_value,
        a.get("out_dtype") or None,
        name="crop_and_resize",
    )


def _dilation2d(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    layout = a.data_layout
    if (layout, a.kernel_layout) not in (("NCHW", "IHW"), ("NHWC", "HWI")):
        raise RelayError(f"the layouts {layout} and {a.kernel_layout} are not supported")
    function = getattr(topi.image, f"dilation2d_{layout.lower()}")
    return ctx.te(
        function,
        tensor(args[0]),
        tensor(args[1]),
        list(a.ints("strides")),
        list(a.ints("padding")),
        list(a.ints("dilations")),
        a.get("out_dtype") or dtype_of(args[0]),
        name="dilation2d",
    )


def _affine_grid(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return ctx.te(
        topi.image.affine_grid, tensor(args[0]), list(a.ints("target_shape")), name="affine_grid"
    )


def _grid_sample(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return ctx.te(
        topi.image.grid_sample,
        tensor(args[0]),
        tensor(args[1]),
        a.get("method", "bilinear"),
        a.get("layout", "NCHW"),
        a.get("padding_mode", "zeros"),
        bool(a.align_corners),
        name="grid_sample",
    )


CONVERTERS: dict[str, Converter] = {
    **{f"image.resize{rank}d": _resize(rank) for rank in DATA},
    "image.affine_grid": _affine_grid,
    "image.crop_and_resize": _crop_and_resize,
    "image.dilation2d": _dilation2d,
    "image.grid_sample": _grid_sample,
    "nn.upsampling": _upsampling,
    "nn.upsampling3d": _upsampling3d,
}
