"""Element by element: unary, binary, comparisons, and tensors of one value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, topi

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

op = relax.op

# Relay's name -> Relax's, where the meaning is one.
UNARY = {
    **{
        name: name
        for name in [
            "abs",
            "acos",
            "acosh",
            "asin",
            "asinh",
            "atan",
            "atanh",
            "bitwise_not",
            "ceil",
            "cos",
            "cosh",
            "erf",
            "exp",
            "floor",
            "isfinite",
            "isinf",
            "isnan",
            "log",
            "logical_not",
            "negative",
            "rsqrt",
            "sigmoid",
            "sign",
            "sin",
            "sinh",
            "sqrt",
            "tan",
            "tanh",
            "trunc",
        ]
    },
    # The approximations of fast_math; within their error.
    "fast_erf": "erf",
    "fast_exp": "exp",
    "fast_tanh": "tanh",
}
BINARY = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "floor_divide",
    "mod",
    "floor_mod",
    "maximum",
    "minimum",
    "left_shift",
    "right_shift",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "logical_and",
    "logical_or",
    "logical_xor",
    "equal",
    "not_equal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
]
# Marks for passes and devices; the value goes through.
IDENTITIES = (
    "annotation.bitpack_end",
    "annotation.bitpack_start",
    "annotation.cast_hint",
    "annotation.checkpoint",
    "annotation.compiler_begin",
    "annotation.compiler_end",
    "annotation.stop_fusion",
    "copy",
    "device_copy",
    "on_device",
)


def _unary(name: str) -> Converter:
    function = getattr(op, name)
    return lambda ctx, args, a: function(tensor(args[0]))


def _binary(name: str) -> Converter:
    function = getattr(op, name)
    return lambda ctx, args, a: function(tensor(args[0]), tensor(args[1]))


def _rounded(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Halves away from zero."""
    x = tensor(args[0])
    if not dtype_of(x).startswith("float"):
        return x
    return rounded_away(ctx, x)


def rounded_away(ctx: Context, x: relax.Expr) -> relax.Expr:
    """The nearest integer, halves away from zero, as C's ``round``."""
    half = ctx.scalar_like(0.5, x)
    size = ctx.emit(op.floor(ctx.emit(op.add(ctx.emit(op.abs(x)), half))))
    return op.multiply(ctx.emit(op.sign(x)), size)


def _log(base: float) -> Converter:
    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        x = tensor(args[0])
        return op.multiply(ctx.emit(op.log(x)), ctx.scalar_like(1 / math.log(base), x))

    return convert


def _power(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, exponent = tensor(args[0]), tensor(args[1])
    value = ctx.value(exponent)
    if value is not None and value.size == 1 and value.ndim <= rank_of(x) and value.item() == 2:
        return op.multiply(x, x)
    return op.power(x, exponent)


def _truncated(remainder: bool) -> Converter:
    """Quotients towards zero, and what they leave."""

    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        x, y = tensor(args[0]), tensor(args[1])
        if not dtype_of(x).startswith("float"):
            return op.mod(x, y) if remainder else op.divide(x, y)
        whole = ctx.emit(op.trunc(ctx.emit(op.divide(x, y))))
        return op.subtract(x, ctx.emit(op.multiply(whole, y))) if remainder else whole

    return convert


def _clip(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    low, high = a.a_min, a.a_max
    if dtype_of(x).startswith("float"):
        if low == 0 and math.isinf(high):
            return op.nn.relu(x)
        return op.clip(x, low, high)
    limits = np.iinfo(dtype_of(x))
    return op.clip(x, max(math.ceil(max(low, limits.min)), limits.min), int(min(high, limits.max)))


def _cast(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return cast(ctx, tensor(args[0]), a.dtype)


def cast(ctx: Context, x: relax.Expr, dtype: str) -> relax.Expr:
    """The same values in another dtype; constants are converted here."""
    if dtype_of(x) == dtype:
        return x
    value = ctx.value(x)
    if value is not None and value.size == 1:
        return ctx.const(value, dtype)
    if dtype == "bool":
        return ctx.emit(op.not_equal(x, ctx.scalar_like(0, x)))
    return ctx.emit(op.astype(x, dtype))


def _cast_like(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return cast(ctx, tensor(args[0]), dtype_of(args[1]))


def _reinterpret(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return ctx.te(topi.reinterpret, tensor(args[0]), a.dtype, name="reinterpret")


def _fixed_point_multiply(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return fixed_point_multiply(ctx, tensor(args[0]), a.multiplier, a.shift)


def fixed_point_multiply(
    ctx: Context, x: relax.Expr, multiplier: Any, shift: Any, *, away: bool = False
) -> relax.Expr:
    """``x * multiplier * 2**(shift - 31)`` of int32, halves up (``away``: from zero); exact.

    ``multiplier`` and ``shift`` are integers, or arrays that broadcast against ``x``. The sums
    are those of TVM's ``q_multiply_shift``, in int64.
    """
    shift = np.asarray(shift, np.int64)
    left, right = np.maximum(shift, 0), 31 + np.maximum(-shift, 0)
    wide = ctx.emit(op.astype(x, "int64"))
    if left.any():
        wide = ctx.emit(op.left_shift(wide, ctx.const(left)))
    product = ctx.emit(op.multiply(wide, ctx.const(np.asarray(multiplier, np.int64))))
    half = np.left_shift(np.int64(1), right - 1)
    if away:
        below = ctx.emit(op.less(product, ctx.const(np.int64(0))))
        nudge = ctx.emit(op.where(below, ctx.const(half - 1), ctx.const(half)))
    else:
        nudge = ctx.const(half)
    total = ctx.emit(op.add(product, nudge))
    return ctx.emit(op.astype(ctx.emit(op.right_shift(total, ctx.const(right))), "int32"))


def _fixed_point_multiply_per_axis(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    multiplier, left, right = (ctx.needed(v, "a multiplier or shift") for v in args[1:4])
    axis = a.ints("axes")[0]
    shape = [1] * rank_of(x)
    shape[axis] = -1
    shift = np.asarray(left, np.int64) - np.asarray(right, np.int64)
    return fixed_point_multiply(ctx, x, multiplier.reshape(shape), shift.reshape(shape))


def _where(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    condition = cast(ctx, tensor(args[0]), "bool")
    return op.where(condition, tensor(args[1]), tensor(args[2]))


def _filled(value: float) -> Converter:
    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        return op.full(list(a.shape), ctx.const(value, a.dtype), a.dtype)

    return convert


def _full(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    dtype = a.dtype or dtype_of(args[0])
    return op.full(list(a.shape), cast(ctx, tensor(args[0]), dtype), dtype)


def _filled_like(value: float | None) -> Converter:
    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        x = tensor(args[0])
        fill = ctx.scalar_like(value, x) if value is not None else args[1]
        return op.full(shape_of(x), cast(ctx, tensor(fill), dtype_of(x)), dtype_of(x))

    return convert


def _arange(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    dtype = a.dtype
    known = [ctx.value(arg) for arg in args[:3]]
    if all(value is not None for value in known):
        start, stop, step = (value.item() for value in known if value is not None)
        count = max(0, math.ceil((stop - start) / step)) if step else 0
        if step == 0 or count > 2**31:
            raise RelayError(f"a range of {count} numbers, from {start} to {stop} by {step}")
        return op.arange(start, stop, step, dtype)
    limits = [ctx.needed_sizes(arg, "a range's limit")[0] for arg in args[:3]]
    if not dtype.startswith("int"):
        raise RelayError(f"a range of open length must be of integers, not {dtype}")
    return ctx.emit(op.astype(ctx.emit(op.arange(*limits, dtype="int64")), dtype))


CONVERTERS: dict[str, Converter] = {
    **{name: _unary(own) for name, own in UNARY.items()},
    **{name: _binary(name) for name in BINARY},
    **{name: lambda ctx, args, a: args[0] for name in IDENTITIES},
    "arange": _arange,
    "cast": _cast,
    "cast_like": _cast_like,
    "clip": _clip,
    "fixed_point_multiply": _fixed_point_multiply,
    "fixed_point_multiply_per_axis": _fixed_point_multiply_per_axis,
    "full": _full,
    "full_like": _filled_like(None),
    "log10": _log(10),
    "log2": _log(2),
    "ones": _filled(1),
    "ones_like": _filled_like(1),
    "power": _power,
    "reinterpret": _reinterpret,
    "round": _rounded,
    "trunc_divide": _truncated(False),
    "trunc_mod": _truncated(True),
    "where": _where,
    "zeros": _filled(0),
    "zeros_like": _filled_like(0),
}
