"""Quantized operators (``qnn.*``), as TVM's canonicalization computes them.

Products and sums are of integers, exact. :func:`requantize` is TVM's fixed-point arithmetic
(``src/relay/qnn/op/requantize.cc``; halves upward by default), so that results are those of TVM
bit by bit. Functions of one 8-bit value are tables of 256 entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import relax

from burnish.compiler.importers.relay.context import (
    Attributes,
    Context,
    Converter,
    Value,
    axis_of,
    dtype_of,
    rank_of,
    tensor,
)
from burnish.compiler.importers.relay.graph import RelayError
from burnish.compiler.importers.relay.ops.elementwise import (
    cast,
    fixed_point_multiply,
    rounded_away,
)
from burnish.compiler.importers.relay.ops.nn import CONVERTERS as NN
from burnish.compiler.importers.relay.ops.nn import (
    convolution,
    product,
    transposed_convolution,
)

op = relax.op
INT8 = ("int8", "uint8")


@dataclass(frozen=True)
class Scale:
    """Scale and zero point: numbers, or one of each a channel of ``axis``."""

    scale: np.ndarray
    zero: np.ndarray
    axis: int = -1

    def shaped(self, values: np.ndarray, rank: int) -> np.ndarray:
        """Values of channels, to broadcast against a tensor."""
        if values.size == 1:
            return values.reshape(())
        shape = [1] * rank
        shape[axis_of(self.axis, rank)] = -1
        return values.reshape(shape)

    def same_as(self, other: Scale) -> bool:
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)


def _scale(ctx: Context, scale: Value, zero: Value, axis: int = -1) -> Scale:
    return Scale(
        ctx.needed(scale, "a scale").astype(np.float32),
        ctx.needed(zero, "a zero point").astype(np.int32),
        axis,
    )


def _limits(dtype: str) -> tuple[int, int]:
    found = np.iinfo(dtype)
    return int(found.min), int(found.max)


def _shifted(ctx: Context, x: relax.Expr, zero: np.ndarray) -> relax.Expr:
    """int32 values less their zero point, which is shaped to broadcast."""
    wide = cast(ctx, x, "int32")
    if not zero.any():
        return wide
    return ctx.emit(op.subtract(wide, ctx.const(zero.astype(np.int32))))


def _saturated(ctx: Context, x: relax.Expr, dtype: str) -> relax.Expr:
    """int32 in another integer dtype, its limits kept."""
    if dtype == "int32":
        return x
    return cast(ctx, ctx.emit(op.clip(x, *_limits(dtype))), dtype)


def _quantize(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    return _quantized(ctx, x, _scale(ctx, args[1], args[2], int(a.axis)), a.out_dtype)


def _quantized(ctx: Context, x: relax.Expr, to: Scale, dtype: str) -> relax.Expr:
    """``round(x / scale) + zero``, halves away from zero, within the dtype's limits."""
    rank = rank_of(x)
    scaled = ctx.emit(op.divide(x, ctx.const(to.shaped(to.scale, rank))))
    whole = ctx.emit(rounded_away(ctx, scaled))
    moved = ctx.emit(op.add(whole, ctx.const(to.shaped(to.zero, rank).astype(np.float32))))
    low, high = _limits(dtype)
    return cast(ctx, ctx.emit(op.clip(moved, float(low), float(high))), dtype)


def _dequantize(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    return _dequantized(ctx, x, _scale(ctx, args[1], args[2], int(a.axis)), a.out_dtype)


def _dequantized(ctx: Context, x: relax.Expr, by: Scale, dtype: str = "float32") -> relax.Expr:
    rank = rank_of(x)
    shifted = _shifted(ctx, x, by.shaped(by.zero, rank))
    real = cast(ctx, shifted, "float32")
    found = ctx.emit(op.multiply(real, ctx.const(by.shaped(by.scale, rank))))
    return cast(ctx, found, dtype or "float32")


def _requantize(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    axis = int(a.axis)
    have, want = _scale(ctx, args[1], args[2], axis), _scale(ctx, args[3], args[4], axis)
    compute = a.get("compute_dtype", "None")
    found = requantized(
        ctx, x, have, want, a.get("rounding", "None"), "int64" if compute == "None" else compute
    )
    return _saturated(ctx, found, a.out_dtype)


def requantized(
    ctx: Context,
    x: relax.Expr,
    have: Scale,
    want: Scale,
    rounding: str = "None",
    compute: str = "int64",
) -> relax.Expr:
    """int32 values in another scale, its zero point added, not yet limited.

    ``compute`` is ``int64`` (fixed point, exact to TVM's) or ``float32`` / ``float64``;
    ``rounding`` is ``UPWARD`` (halves up, the default) or ``TONEAREST`` (halves from zero).
    """
    if want.scale.size != 1 or want.zero.size != 1:
        raise RelayError("a scale for each channel of the result is not supported")
    if rounding not in ("None", "UPWARD", "TONEAREST"):
        raise RelayError(f"the rounding {rounding!r} is not supported")
    away = rounding == "TONEAREST"
    rank = rank_of(x)
    x = _shifted(ctx, x, have.shaped(have.zero, rank))
    if not np.array_equal(have.scale, want.scale):
        if compute == "int64":
            ratio = have.scale.astype(np.float64) / np.float64(want.scale.item())
            parts = [_fixed_point(n) for n in ratio.ravel()]
            multiplier = have.shaped(np.array([m for m, _ in parts]), rank)
            shift = have.shaped(np.array([s for _, s in parts]), rank)
            x = fixed_point_multiply(ctx, x, multiplier, shift, away=away)
        elif compute in ("float32", "float64"):
            ratio = have.scale.astype(compute) / want.scale.astype(compute).item()
            x = _scaled(ctx, x, have.shaped(ratio.astype(compute), rank), compute, away)
        else:
            raise RelayError(f"the compute_dtype {compute!r} is not supported")
    zero = want.zero.item()
    return ctx.emit(op.add(x, ctx.const(zero, "int32"))) if zero else x


def _scaled(ctx: Context, x: relax.Expr, ratio: np.ndarray, dtype: str, away: bool) -> relax.Expr:
    real = ctx.emit(op.multiply(cast(ctx, x, dtype), ctx.const(ratio)))
    if away:
        whole = ctx.emit(rounded_away(ctx, real))
    else:
        whole = ctx.emit(op.floor(ctx.emit(op.add(real, ctx.const(0.5, dtype)))))
    return cast(ctx, whole, "int32")


def _fixed_point(ratio: float) -> tuple[int, int]:
    """``(m, s)``: the ratio is about ``m * 2**(s - 31)`` with m below ``2**31``."""
    if ratio == 0:
        return 0, 0
    fraction, exponent = math.frexp(ratio)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        return multiplier // 2, exponent + 1
    return multiplier, exponent


def _operand(ctx: Context, x: relax.Expr, zero: Value, axis: int) -> relax.Expr:
    """A factor of an integer product; int8 stays as it is where its zero point is 0."""
    value = ctx.needed(zero, "a zero point")
    if value.size > 1:
        shape = [1] * rank_of(x)
        shape[axis] = -1
        value = value.reshape(shape)
    else:
        value = value.reshape(())
    return _shifted(ctx, x, value)


def _conv2d(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Arguments: data, kernel, their zero points, their scales (which the result carries)."""
    x = _operand(ctx, tensor(args[0]), args[2], a.data_layout.index("C"))
    w = _operand(ctx, tensor(args[1]), args[3], a.kernel_layout.index("O"))
    return convolution(ctx, x, w, a, 2, a.out_dtype)


def _conv2d_transpose(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = _operand(ctx, tensor(args[0]), args[2], a.data_layout.index("C"))
    w = _operand(ctx, tensor(args[1]), args[3], a.kernel_layout.index("O"))
    return transposed_convolution(ctx, x, w, a, 2, a.out_dtype)


def _dense(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = _operand(ctx, tensor(args[0]), args[2], -1)
    w = _operand(ctx, tensor(args[1]), args[3], 0)
    return product(ctx, x, w, a.out_dtype, swap_x=False, swap_y=True)


def _batch_matmul(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = _operand(ctx, tensor(args[0]), args[2], -1)
    y = _operand(ctx, tensor(args[1]), args[3], 0)
    return product(
        ctx,
        x,
        y,
        a.get("out_dtype") or "int32",
        swap_x=bool(a.get("transpose_a")),
        swap_y=bool(a.get("transpose_b", True)),
    )


def _operands(ctx: Context, args: Sequence[Value]) -> tuple[Scale, Scale, Scale]:
    return tuple(_scale(ctx, args[i], args[i + 1]) for i in (2, 4, 6))  # type: ignore[return-value]


def _in_scale(ctx: Context, x: relax.Expr, have: Scale, want: Scale) -> relax.Expr:
    if have.same_as(want):
        return cast(ctx, x, "int32")
    return requantized(ctx, x, have, want)


def _sum(sign: int) -> Converter:
    """Both operands in the result's scale; one zero point too many is taken off."""

    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        left, right, out = _operands(ctx, args)
        x = _in_scale(ctx, tensor(args[0]), left, out)
        y = _in_scale(ctx, tensor(args[1]), right, out)
        total = ctx.emit(op.add(x, y) if sign > 0 else op.subtract(x, y))
        zero = ctx.const(sign * out.zero.item(), "int32")
        if out.zero.item():
            total = ctx.emit(op.subtract(total, zero))
        return _saturated(ctx, total, dtype_of(args[0]))

    return convert


def _mul(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    left, right, out = _operands(ctx, args)
    x = _shifted(ctx, tensor(args[0]), left.zero.reshape(()))
    y = _shifted(ctx, tensor(args[1]), right.zero.reshape(()))
    found = ctx.emit(op.multiply(x, y))
    have = Scale((left.scale * right.scale).astype(np.float32), np.zeros((), np.int32))
    return _saturated(ctx, requantized(ctx, found, have, out), dtype_of(args[0]))


def _concatenate(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Arguments: data, scales and zero points (a tuple each), and those of the result."""
    if not all(isinstance(v, tuple) for v in args[:3]):
        raise RelayError("tuples of tensors, scales and zero points are expected")
    out = _scale(ctx, args[3], args[4])
    tensors = []
    for x, scale, zero in zip(*args[:3], strict=True):
        have = _scale(ctx, scale, zero)
        dtype = dtype_of(x)
        same = have.same_as(out)
        tensors.append(
            x if same else _saturated(ctx, requantized(ctx, tensor(x), have, out), dtype)
        )
    return op.concat(tensors, axis_of(int(a.axis), rank_of(tensors[0])))


def _table(function: Callable[[np.ndarray], np.ndarray]) -> Converter:
    """A function of one 8-bit value, by a table of its 256 results."""

    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        x = tensor(args[0])
        dtype = dtype_of(x)
        if dtype not in INT8:
            raise RelayError(f"8-bit values are expected, got {dtype}")
        have, want = _scale(ctx, args[1], args[2]), _scale(ctx, args[3], args[4])
        return _looked_up(ctx, x, function, have, want)

    return convert


def _looked_up(
    ctx: Context,
    x: relax.Expr,
    function: Callable[[np.ndarray], np.ndarray],
    have: Scale,
    want: Scale,
) -> relax.Expr:
    dtype = dtype_of(x)
    low, high = _limits(dtype)
    codes = np.arange(low, high + 1)
    with np.errstate(all="ignore"):
        real = function((codes - have.zero.item()).astype(np.float32) * have.scale.item())
        scaled = real.astype(np.float32) / want.scale.astype(np.float32).item()
        whole = np.sign(scaled) * np.floor(np.abs(scaled) + 0.5) + want.zero.item()
        table = np.nan_to_num(whole, nan=low).clip(low, high).astype(dtype)
    place = cast(ctx, x, "int32")
    if low:
        place = ctx.emit(op.subtract(place, ctx.const(low, "int32")))
    return op.take(ctx.const(table), place, axis=0, mode="fast")


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _hardswish(x: np.ndarray) -> np.ndarray:
    return x * np.clip(x + 3, 0, 6) / 6


def _leaky_relu(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Below zero ``alpha * q + (1 - alpha) * zero``, both products in fixed point."""
    x, alpha = tensor(args[0]), float(a.alpha)
    have, want = _scale(ctx, args[1], args[2]), _scale(ctx, args[3], args[4])
    moved = _in_scale(ctx, x, have, want)
    scaled = fixed_point_multiply(ctx, moved, *_fixed_point(alpha))
    rest = fixed_point_multiply(ctx, ctx.const(want.zero.item(), "int32"), *_fixed_point(1 - alpha))
    below = ctx.emit(op.less(cast(ctx, x, "int32"), ctx.const(have.zero.item(), "int32")))
    found = ctx.emit(op.where(below, ctx.emit(op.add(scaled, rest)), moved))
    return _saturated(ctx, found, dtype_of(x))


def _softmax(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """I-ViT's Shiftmax in integers (Li and Gu, arXiv:2207.01405, algorithm 1), as TVM has it."""
    x = tensor(args[0])
    have, want = _scale(ctx, args[1], args[2]), _scale(ctx, args[3], args[4])
    axis = [axis_of(int(a.get("axis", -1)), rank_of(x))]
    one = math.floor(1 / have.scale.item() + 0.5)
    if one < 1:
        raise RelayError(f"the scale {have.scale.item():g} is too large for the integer softmax")

    def shifted(value: relax.Expr, by: int) -> relax.Expr:
        return ctx.emit(op.right_shift(value, ctx.const(by, "int32")))

    codes = _shifted(ctx, x, have.zero.reshape(()))
    codes = ctx.emit(op.subtract(codes, ctx.emit(op.max(codes, axis, True))))
    # In powers of two: times log2(e), about 1 + 1/2 - 1/16.
    codes = ctx.emit(op.subtract(ctx.emit(op.add(codes, shifted(codes, 1))), shifted(codes, 4)))
    whole = ctx.emit(op.divide(codes, ctx.const(-one, "int32")))
    rest = ctx.emit(op.add(codes, ctx.emit(op.multiply(whole, ctx.const(one, "int32")))))
    near = ctx.emit(op.add(shifted(rest, 1), ctx.const(one, "int32")))
    power = ctx.emit(op.subtract(ctx.const(8, "int32"), whole))
    gone = ctx.emit(op.less(power, ctx.const(0, "int32")))
    power = ctx.emit(op.maximum(power, ctx.const(0, "int32")))
    grown = ctx.emit(op.left_shift(near, power))
    grown = ctx.emit(op.where(gone, ctx.const(0, "int32"), grown))
    share = ctx.emit(op.divide(ctx.const(2**30, "int32"), ctx.emit(op.sum(grown, axis, True))))
    found = shifted(ctx.emit(op.multiply(share, grown)), 30 - 7)
    seventh = Scale(np.asarray(1 / 128, np.float32), np.zeros((), np.int32))
    return _saturated(ctx, requantized(ctx, found, seventh, want), dtype_of(x))


def _avg_pool2d(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Codes in the result's scale, then their mean in integers, rounded towards zero."""
    x = tensor(args[0])
    have, want = _scale(ctx, args[1], args[2]), _scale(ctx, args[3], args[4])
    mean = ctx.emit(NN["nn.avg_pool2d"](ctx, [_in_scale(ctx, x, have, want)], a))
    return _saturated(ctx, mean, dtype_of(x))


def _simulated(back: bool) -> Converter:
    """Quantization in floating point; the dtype is a code: 0 none, 1 int8, 2 uint8, 3 int32."""

    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        x = tensor(args[0])
        code = int(ctx.scalar(args[1], "the dtype"))
        if code == 0:
            return x
        dtype = {1: "int8", 2: "uint8", 3: "int32"}.get(code)
        if dtype is None:
            raise RelayError(f"the dtype code {code} is not supported")
        by = _scale(ctx, args[2], args[3], int(a.axis))
        rank = rank_of(x)
        scale, zero = (
            ctx.const(by.shaped(v, rank).astype(np.float32)) for v in (by.scale, by.zero)
        )
        if back:
            return op.multiply(ctx.emit(op.subtract(x, zero)), scale)
        whole = ctx.emit(rounded_away(ctx, ctx.emit(op.divide(x, scale))))
        low, high = _limits(dtype)
        return op.clip(ctx.emit(op.add(whole, zero)), float(low), float(high))

    return convert


CONVERTERS: dict[str, Converter] = {
    "qnn.abs": _table(np.abs),
    "qnn.add": _sum(1),
    "qnn.avg_pool2d": _avg_pool2d,
    "qnn.batch_matmul": _batch_matmul,
    "qnn.concatenate": _concatenate,
    "qnn.conv2d": _conv2d,
    "qnn.conv2d_transpose": _conv2d_transpose,
    "qnn.dense": _dense,
    "qnn.dequantize": _dequantize,
    "qnn.erf": _table(_erf),
    "qnn.exp": _table(np.exp),
    "qnn.hardswish": _table(_hardswish),
    "qnn.leaky_relu": _leaky_relu,
    "qnn.log": _table(np.log),
    "qnn.mul": _mul,
    "qnn.quantize": _quantize,
    "qnn.requantize": _requantize,
    "qnn.rsqrt": _table(lambda x: 1 / np.sqrt(x)),
    "qnn.sigmoid": _table(lambda x: 1 / (1 + np.exp(-x))),
    "qnn.simulated_dequantize": _simulated(True),
    "qnn.simulated_quantize": _simulated(False),
    "qnn.softmax": _softmax,
    "qnn.sqrt": _table(np.sqrt),
    "qnn.subtract": _sum(-1),
    "qnn.tanh": _table(np.tanh),
}
