"""Converters of ours for torch operators that TVM lacks, or computes otherwise than torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tvm
from torch import fx
from tvm import relax

from burnish.compiler.importers.pytorch.arguments import arguments

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.converters.kinds import Converter
    from burnish.compiler.importers.pytorch.translator import Translator

op = relax.op


def select(node: fx.Node, t: Translator) -> relax.Expr:
    """One index of an axis; a negative one counts from the end (TVM's reads other memory)."""
    a = arguments(node, t)
    x, axis = a["self"], a["dim"] % a["self"].ty.ndim
    index = a["index"]
    if isinstance(index, int) and index < 0:
        index = x.ty.shape[axis] + index
    row = t.emit(op.strided_slice(x, [axis], [index], [index + 1], assume_inbound=True))
    return op.squeeze(row, [axis])


def slice_(node: fx.Node, t: Translator) -> relax.Expr:
    """A range of an axis, of the length that torch recorded.

    torch knows from the sizes' ranges where a slice is in bounds; TVM would write ``min(s, 64)``
    for a length that is ``s``, and could not tell that the two are one.
    """
    a = arguments(node, t)
    x, axis, step = a["self"], a["dim"] % a["self"].ty.ndim, a["step"]
    length = t.result_shape(node)[axis]
    start = _from_start(t, 0 if a["start"] is None else a["start"], x.ty.shape[axis])
    if (
        isinstance(start, int)
        and start == 0
        and step == 1
        and t.symbols.equal(length, x.ty.shape[axis])
    ):
        return x
    end = start + length if step == 1 else start + (length - 1) * step + 1
    return op.strided_slice(x, [axis], [start], [end], [step], assume_inbound=True)


def _from_start(t: Translator, start: Any, size: Any) -> Any:
    """Where a slice starts: a negative number counts from the end, no further than the start."""
    if isinstance(start, int) and start >= 0:
        return start
    analyzer, zero = t.symbols.analyzer, tvm.tirx.IntImm("int64", 0)
    below = start < 0 if isinstance(start, int) else analyzer.can_prove(start < zero)
    if not below and analyzer.can_prove(start >= zero):
        return start
    wrapped = tvm.tirx.max(size + start, zero)
    if not below:
        wrapped = tvm.tirx.if_then_else(start < zero, wrapped, start)
    place = analyzer.simplify(wrapped)
    return int(place) if isinstance(place, tvm.tirx.IntImm) else place


def cat(node: fx.Node, t: Translator) -> relax.Expr:
    """Joined along an axis; vectors without elements are left out, whatever the others' rank."""
    a = arguments(node, t)
    values = node.args[0]
    parts = [
        part
        for part, value in zip(a["tensors"], values, strict=True)  # type: ignore[arg-type]
        if tuple(value.meta["val"].shape) != (0,)
        or value.meta["val"].ndim == len(t.result_shape(node))
    ]
    dtype = t.result_dtype(node)
    parts = [p if t.dtype_of(p) == dtype else t.emit(op.astype(p, dtype)) for p in parts]
    return parts[0] if len(parts) == 1 else op.concat(parts, a["dim"])


def elu(node: fx.Node, t: Translator) -> relax.Expr:
    """``scale * (max(0, x) + alpha * (exp(min(0, input_scale * x)) - 1))``; TVM's has no scales."""
    a = arguments(node, t)
    x, dtype = a["self"], t.result_dtype(node)
    zero, one = relax.const(0, dtype), relax.const(1, dtype)
    below = t.emit(op.minimum(x, zero))
    if a["input_scale"] != 1:
        below = t.emit(op.multiply(below, relax.const(a["input_scale"], dtype)))
    below = t.emit(op.subtract(t.emit(op.exp(below)), one))
    below = t.emit(op.multiply(below, relax.const(a["alpha"] * a["scale"], dtype)))
    above = t.emit(op.maximum(x, zero))
    if a["scale"] != 1:
        above = t.emit(op.multiply(above, relax.const(a["scale"], dtype)))
    return op.add(above, below)


def clamp(node: fx.Node, t: Translator) -> relax.Expr:
    """Limits to a range open on one side or none; TVM's writes infinities into integers."""
    a = arguments(node, t)
    x, dtype = a["self"], t.result_dtype(node)
    if t.dtype_of(x) != dtype:
        x = t.emit(op.astype(x, dtype))
    low, high = a["min"], a["max"]
    numbers = isinstance(low, (int, float)) and isinstance(high, (int, float))
    if numbers and dtype.startswith("float"):
        return op.clip(x, float(low), float(high))
    if low is not None:
        x = t.emit(op.maximum(x, t._operand(low, dtype)))
    return x if high is None else op.minimum(x, t._operand(high, dtype))


def divide(node: fx.Node, t: Translator) -> relax.Expr:
    """Division rounded as ``rounding_mode`` says, under torch's promotion rules."""
    mode = node.kwargs.get("rounding_mode")
    if mode == "floor":
        return t._binary_op(op.floor_divide, lambda a, b: a // b)(node)
    if mode == "trunc" and not node.meta["val"].dtype.is_floating_point:
        raise ValueError("integer division rounded towards zero has no converter")
    quotient = t._binary_op(op.divide, lambda a, b: a / b)(node)
    return op.trunc(quotient) if mode == "trunc" else quotient


def reduction(make: Callable[..., relax.Expr]) -> Converter:
    """A reduction over ``dim`` (none: over all)."""

    def convert(node: fx.Node, t: Translator) -> relax.Expr:
        a = arguments(node, t)
        dims = a["dim"] if isinstance(a["dim"], (list, tuple)) else [a["dim"]]
        axes = [int(axis) for axis in dims] or None
        return make(a["self"], axes, keepdims=bool(a["keepdim"]))

    return convert


def min_dim(node: fx.Node, t: Translator) -> Any:
    """(values, indices) of the smallest along an axis."""
    a = arguments(node, t)
    axes = {"axis": a["dim"], "keepdims": bool(a["keepdim"])}
    return (t.emit(op.min(a["self"], **axes)), t.emit(op.argmin(a["self"], **axes)))


def max_pool2d(node: fx.Node, t: Translator) -> relax.Expr:
    a = arguments(node, t)
    kernel = list(a["kernel_size"])
    return op.nn.max_pool2d(
        a["self"],
        pool_size=kernel,
        strides=list(a["stride"]) or kernel,
        padding=[*a["padding"], *a["padding"]],
        dilation=list(a["dilation"]),
        ceil_mode=bool(a["ceil_mode"]),
    )


def avg_pool2d(node: fx.Node, t: Translator) -> relax.Expr:
    a = arguments(node, t)
    if a["divisor_override"] is not None:
        raise ValueError("divisor_override has no converter: multiply the result instead")
    return t._avg_pool2d(node)


def upsample(method: str) -> Converter:
    """Resize to the size torch recorded; refuses scale factors that do not divide out."""

    def convert(node: fx.Node, t: Translator) -> relax.Expr:
        a = arguments(node, t)
        size = t.result_shape(node)[2:]
        given = [getattr(n, "value", n) for n in a["input"].ty.shape][2:]
        scales = a["scale_factors"] or [None] * len(size)
        for have, want, scale in zip(given, size, scales, strict=True):
            if scale is None or float(scale).is_integer():
                continue
            if not isinstance(want, int) or not math.isclose(have * scale, want):
                raise ValueError(f"scale factor {scale} of size {have} is not whole: give size=")
        if method == "nearest_neighbor":
            mode, rounding = "asymmetric", "floor"
        else:
            mode, rounding = "align_corners" if a["align_corners"] else "half_pixel", ""
        return op.image.resize2d(
            a["input"],
            tuple(size),
            layout="NCHW",
            method=method,
            coordinate_transformation_mode=mode,
            rounding_method=rounding,
        )

    return convert


def grid_sample(node: fx.Node, t: Translator) -> relax.Expr:
    """``x [N, C, H, W]`` at ``grid [N, P, Q, 2]``, which TVM wants as ``[N, 2, P, Q]``."""
    a = arguments(node, t)
    methods, paddings = ("bilinear", "nearest"), ("zeros", "border")
    if a["interpolation_mode"] > 1 or a["padding_mode"] > 1:
        raise ValueError(
            "grid_sample is imported with mode bilinear or nearest and padding zeros or border"
        )
    return op.image.grid_sample(
        a["input"],
        t.emit(op.permute_dims(a["grid"], [0, 3, 1, 2])),
        method=methods[a["interpolation_mode"]],
        layout="NCHW",
        padding_mode=paddings[a["padding_mode"]],
        align_corners=bool(a["align_corners"]),
    )


TENSORS: dict[str, Converter] = {
    "amax.default": reduction(op.max),
    "amin.default": reduction(op.min),
    "avg_pool2d.default": avg_pool2d,
    "cat.default": cat,
    "clamp.default": clamp,
    "div.Tensor_mode": divide,
    "elu.default": elu,
    "grid_sampler_2d.default": grid_sample,
    "max_pool2d.default": max_pool2d,
    "min.dim": min_dim,
    "prod.dim_int": reduction(op.prod),
    "select.int": select,
    "slice.Tensor": slice_,
    "upsample_bilinear2d.vec": upsample("linear"),
    "upsample_nearest2d.vec": upsample("nearest_neighbor"),
}
