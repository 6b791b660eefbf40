"""Operators whose settings are tensors: shapes, counts and axes that the module computes.

They are imported where the settings follow from the shapes of the inputs; what depends on the
values of the inputs is refused, with the operator's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax

from burnish.compiler.importers.relay.context import (
    Attributes,
    Context,
    Converter,
    Value,
    dtype_of,
    rank_of,
    shape_of,
    tensor,
)
from burnish.compiler.importers.relay.graph import RelayError
from burnish.compiler.importers.relay.ops.elementwise import cast
from burnish.compiler.importers.relay.ops.image import resized, upsampled
from burnish.compiler.importers.relay.ops.index import one_hot, sliced, topk
from burnish.compiler.importers.relay.ops.shape import pad, reshape_target

op = relax.op


def _shape(ctx: Context, expr: Value) -> list[Any]:
    return ctx.needed_sizes(expr, "the target shape")


def _reshape(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    codes = _shape(ctx, args[1])
    return ctx.reshape(x, reshape_target(codes, shape_of(x), allow_zero=bool(a.get("allowzero"))))


def _broadcast_to(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return op.broadcast_to(tensor(args[0]), _shape(ctx, args[1]))


def _filled(value: float) -> Converter:
    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        return op.full(_shape(ctx, args[0]), ctx.const(value, a.dtype), a.dtype)

    return convert


def _full(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    dtype = a.get("dtype") or dtype_of(args[0])
    return op.full(_shape(ctx, args[1]), cast(ctx, tensor(args[0]), dtype), dtype)


def _tile(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    counts = ctx.needed_sizes(args[1], "the counts of tile")
    return op.tile(tensor(args[0]), [_int(n, "the counts of tile") for n in counts])


def _int(value: Any, what: str) -> int:
    if isinstance(value, (int, float)):
        return int(value)
    raise RelayError(f"{what} must be fixed numbers, got {value}")


def _strided_slice(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    begin, end, strides = (ctx.needed_sizes(v, "a range's limit") for v in args[1:4])
    axes = list(range(len(begin)))
    steps = [_int(n, "the strides") for n in strides]
    return sliced(ctx, tensor(args[0]), begin, end, steps, axes, a.get("slice_mode", "end"))


def _topk(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    count = ctx.needed_sizes(args[1], "the count of topk")[0]
    return topk(ctx, tensor(args[0]), _int(count, "the count of topk"), a)


def _one_hot(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    depth = _int(ctx.needed_sizes(args[3], "the depth")[0], "the depth")
    return one_hot(ctx, tensor(args[0]), args[1], args[2], depth, int(a.axis), a.dtype)


def _pad(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    flat = [_int(n, "the padding") for n in ctx.needed_sizes(args[1], "the padding")]
    widths = list(zip(flat[::2], flat[1::2], strict=True))
    return pad(ctx, tensor(args[0]), widths, a.get("pad_mode", "constant"), args[2])


def _resize2d(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    if len(args) > 2 and a.coordinate_transformation_mode == "tf_crop_and_resize":
        raise RelayError("a region of interest that is computed is not supported")
    return resized(ctx, tensor(args[0]), ctx.needed_sizes(args[1], "the size"), a, 2)


def _upsampling(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    scales = [ctx.needed_sizes(v, "a scale")[0] for v in args[1:3]]
    if not all(isinstance(n, (int, float)) for n in scales):
        raise RelayError("the scales must be numbers known at import")
    return upsampled(ctx, tensor(args[0]), scales[0], scales[1], a)


def _squeeze(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    axes = [_int(n, "the axes") % rank_of(x) for n in ctx.needed_sizes(args[1], "the axes")]
    return op.squeeze(x, axes)


def _expand_dims(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    axis = _int(ctx.needed_sizes(args[1], "the axis")[0], "the axis") % (rank_of(x) + 1)
    return op.expand_dims(x, [axis + n for n in range(a.get("num_newaxis", 1))])


CONVERTERS: dict[str, Converter] = {
    "dyn.broadcast_to": _broadcast_to,
    "dyn.expand_dims": _expand_dims,
    "dyn.full": _full,
    "dyn.image.resize2d": _resize2d,
    "dyn.nn.pad": _pad,
    "dyn.nn.upsampling": _upsampling,
    "dyn.one_hot": _one_hot,
    "dyn.ones": _filled(1),
    "dyn.reshape": _reshape,
    "dyn.squeeze": _squeeze,
    "dyn.strided_slice": _strided_slice,
    "dyn.tile": _tile,
    "dyn.topk": _topk,
    "dyn.zeros": _filled(0),
}
