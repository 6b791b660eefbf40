"""Sums and the like over axes; softmax; running sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax

from burnish.compiler.importers.relay import sizes
from burnish.compiler.importers.relay.context import (
    Attributes,
    Context,
    Converter,
    Value,
    axis_of,
    dtype_of,
    fixed_shape,
    rank_of,
    shape_of,
    tensor,
)
from burnish.compiler.importers.relay.graph import RelayError

op = relax.op


def reduced_axes(x: relax.Expr, a: Attributes) -> list[int]:
    """Axes that go: those given, all without any, the others with ``exclude``."""
    rank = rank_of(x)
    axes = list(range(rank))
    if not sizes.axis_free(a.get("axis")):
        axes = [axis_of(axis, rank) for axis in a.ints("axis")]
    if a.get("exclude"):
        axes = [axis for axis in range(rank) if axis not in axes]
    return axes


def _reduction(name: str) -> Converter:
    function = getattr(op, name)

    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        x = tensor(args[0])
        return function(x, reduced_axes(x, a), a.keepdims)

    return convert


def _of_bools(name: str) -> Converter:
    function = getattr(op, name)

    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        x = tensor(args[0])
        bits = ctx.emit(op.astype(x, "int8"))
        found = ctx.emit(function(bits, reduced_axes(x, a), a.keepdims))
        return op.not_equal(found, ctx.const(0, "int8"))

    return convert


def _variance(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """About the mean that is the second argument, kept dimensions and all."""
    x = tensor(args[0])
    axes = reduced_axes(x, a)
    away = ctx.emit(op.subtract(x, tensor(args[1])))
    square = ctx.emit(op.multiply(away, away))
    if not a.get("unbiased"):
        return op.mean(square, axes, a.keepdims)
    count = sizes.product([shape_of(x)[axis] for axis in axes])
    if not isinstance(count, int) or count < 2:
        raise RelayError(f"an unbiased variance over {count} elements needs 2 or more, fixed")
    total = ctx.emit(op.sum(square, axes, a.keepdims))
    return op.multiply(total, ctx.scalar_like(1 / (count - 1), x))


def _arg(name: str) -> Converter:
    """The place of the extreme; of the first, or with ``select_last_index`` of the last."""
    function = getattr(op, name)

    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        x = tensor(args[0])
        axes, rank = reduced_axes(x, a), rank_of(x)
        axis, keep = axes[0] if axes else 0, bool(a.keepdims)
        shape = shape_of(x)
        kept = [1 if i in axes else n for i, n in enumerate(shape)]
        several = len(axes) != 1
        if several:
            order = [i for i in range(rank) if i not in axes]
            x = ctx.reshape(ctx.permute(x, [*order, *axes]), [*(shape[i] for i in order), -1])
            axis, keep = len(order), False
        if a.get("select_last_index"):
            last = fixed_shape(x)[axis] - 1
            x = ctx.emit(op.flip(x, axis))
            place = ctx.emit(op.astype(ctx.emit(function(x, axis, keep)), "int32"))
            place = ctx.emit(op.subtract(ctx.const(last, "int32"), place))
        else:
            place = ctx.emit(op.astype(ctx.emit(function(x, axis, keep)), "int32"))
        return ctx.reshape(place, kept) if several and a.keepdims else place

    return convert


def _running(name: str) -> Converter:
    function = getattr(op, name)

    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        x = tensor(args[0])
        dtype = a.get("dtype") or ("int32" if dtype_of(x) == "bool" else dtype_of(x))
        axis = a.get("axis")
        if axis is None:
            x, axis = ctx.reshape(x, [-1]), 0
        return function(x, int(axis), dtype, bool(a.get("exclusive")))

    return convert


def _softmax(function: Callable[..., Any]) -> Converter:
    return lambda ctx, args, a: function(
        tensor(args[0]), axis_of(a.get("axis", -1), rank_of(args[0]))
    )


def _l2_normalize(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """``x / sqrt(max(sum(x * x), eps))``."""
    x = tensor(args[0])
    axes = [axis_of(axis, rank_of(x)) for axis in a.get("axis", ())] or list(range(rank_of(x)))
    total = ctx.emit(op.sum(ctx.emit(op.multiply(x, x)), axes, True))
    floor = ctx.emit(op.maximum(total, ctx.scalar_like(a.eps, x)))
    return op.divide(x, ctx.emit(op.sqrt(floor)))


CONVERTERS: dict[str, Converter] = {
    **{name: _reduction(name) for name in ("sum", "mean", "max", "min", "prod")},
    "all": _of_bools("min"),
    "any": _of_bools("max"),
    "argmax": _arg("argmax"),
    "argmin": _arg("argmin"),
    "cumprod": _running("cumprod"),
    "cumsum": _running("cumsum"),
    "nn.fast_softmax": _softmax(op.nn.softmax),
    "nn.l2_normalize": _l2_normalize,
    "nn.log_softmax": _softmax(op.nn.log_softmax),
    "nn.softmax": _softmax(op.nn.softmax),
    "variance": _variance,
}
