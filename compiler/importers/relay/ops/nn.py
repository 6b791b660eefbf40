"""Products, convolutions, pooling, normalizations and losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax, topi

from burnish.compiler.importers.relay import sizes
from burnish.compiler.importers.relay.context import (
    Attributes,
    Context,
    Converter,
    Value,
    axis_of,
    dtype_of,
    rank_of,
    shape_of,
    tensor,
)
from burnish.compiler.importers.relay.graph import RelayError
from burnish.compiler.importers.relay.layouts import transform

op = relax.op
DATA = {1: "NCW", 2: "NCHW", 3: "NCDHW"}


def _swapped(ctx: Context, x: relax.Expr) -> relax.Expr:
    """The last two axes in the other order, as PyTorch's linear layers write it."""
    rank = rank_of(x)
    return ctx.emit(op.permute_dims(x, [*range(rank - 2), rank - 1, rank - 2]))


def product(
    ctx: Context, x: relax.Expr, y: relax.Expr, dtype: str, *, swap_x: bool, swap_y: bool
) -> relax.Expr:
    """``x @ y``, either with its last axes swapped; summed in ``dtype`` where one is given."""
    x = _swapped(ctx, x) if swap_x else x
    y = _swapped(ctx, y) if swap_y else y
    return op.matmul(x, y, dtype if dtype and dtype != dtype_of(x) else None)


def _dense(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, w = tensor(args[0]), tensor(args[1])
    return product(ctx, x, w, a.get("out_dtype", ""), swap_x=False, swap_y=True)


def _matmul(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, y = tensor(args[0]), tensor(args[1])
    return product(ctx, x, y, a.get("out_dtype", ""), swap_x=a.transpose_a, swap_y=a.transpose_b)


def _bias_add(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, bias = tensor(args[0]), tensor(args[1])
    return op.add(x, along(ctx, bias, axis_of(a.axis, rank_of(x)), rank_of(x)))


def along(ctx: Context, vector: relax.Expr, axis: int, rank: int) -> relax.Expr:
    """A vector of one axis, shaped to broadcast."""
    after = rank - axis - 1
    if rank_of(vector) != 1 or not after:
        return vector
    return ctx.reshape(vector, [*shape_of(vector), *[1] * after])


def padding_of(a: Attributes, rank: int) -> list[int]:
    """Padding of both ends of each axis: all front ones, then all back ones."""
    given = list(a.ints("padding"))
    if len(given) == 1:
        given *= rank
    return given * 2 if len(given) == rank else given


def plain_kernel(
    ctx: Context, w: relax.Expr, layout: str, rank: int, groups: int, channels: Any, *, flip: bool
) -> relax.Expr:
    """Weights as ``OIHW`` (``IOHW`` for transposed convolutions: ``flip``).

    Depthwise weights of TFLite (``HWOI``) hold the input channels in O and the multiplier in I.
    """
    want = ("IO" if flip else "OI") + DATA[rank][2:]
    w = transform(ctx, w, layout, want)
    shape = shape_of(w)
    if not flip and groups > 1 and groups == channels == shape[0] and shape[1] != 1:
        w = ctx.reshape(w, [sizes.product(shape[:2]), 1, *shape[2:]])
    return w


def convolution(
    ctx: Context, x: relax.Expr, w: relax.Expr, a: Attributes, rank: int, dtype: str
) -> relax.Expr:
    """A convolution with Relay's attributes, in NCHW and back."""
    layout = a.data_layout
    x = transform(ctx, x, layout, DATA[rank])
    groups = int(a.get("groups", 1))
    channels = shape_of(x)[1]
    w = plain_kernel(ctx, w, a.kernel_layout, rank, groups, channels, flip=False)
    function = getattr(op.nn, f"conv{rank}d")
    found = function(
        x,
        w,
        strides=_spread(a, "strides", rank),
        padding=padding_of(a, rank),
        dilation=_spread(a, "dilation", rank),
        groups=groups,
        data_layout=DATA[rank],
        kernel_layout="OI" + DATA[rank][2:],
        out_dtype=dtype if dtype and dtype != dtype_of(x) else None,
    )
    return transform(ctx, ctx.emit(found), DATA[rank], a.get("out_layout") or layout)


def transposed_convolution(
    ctx: Context, x: relax.Expr, w: relax.Expr, a: Attributes, rank: int, dtype: str
) -> relax.Expr:
    layout = a.data_layout
    x = transform(ctx, x, layout, DATA[rank])
    w = plain_kernel(ctx, w, a.kernel_layout, rank, 1, None, flip=True)
    function = getattr(op.nn, f"conv{rank}d_transpose")
    found = function(
        x,
        w,
        strides=_spread(a, "strides", rank),
        padding=padding_of(a, rank),
        output_padding=_spread(a, "output_padding", rank),
        dilation=_spread(a, "dilation", rank),
        groups=int(a.get("groups", 1)),
        data_layout=DATA[rank],
        kernel_layout="IO" + DATA[rank][2:],
        out_dtype=dtype if dtype and dtype != dtype_of(x) else None,
    )
    return transform(ctx, ctx.emit(found), DATA[rank], a.get("out_layout") or layout)


def _spread(a: Attributes, name: str, rank: int) -> list[int]:
    given = list(a.ints(name))
    return given * rank if len(given) == 1 else given


def _conv(rank: int) -> Converter:
    return lambda ctx, args, a: convolution(
        ctx, tensor(args[0]), tensor(args[1]), a, rank, a.get("out_dtype", "")
    )


def _conv_transpose(rank: int) -> Converter:
    return lambda ctx, args, a: transposed_convolution(
        ctx, tensor(args[0]), tensor(args[1]), a, rank, a.get("out_dtype", "")
    )


def _deformable_conv2d(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    layout = a.data_layout
    x, offset = (transform(ctx, tensor(v), layout, "NCHW") for v in args[:2])
    w = transform(ctx, tensor(args[2]), a.kernel_layout, "OIHW")
    found = ctx.te(
        topi.nn.deformable_conv2d_nchw,
        x,
        offset,
        w,
        _spread(a, "strides", 2),
        padding_of(a, 2),
        _spread(a, "dilation", 2),
        int(a.get("deformable_groups", 1)),
        int(a.get("groups", 1)),
        dtype_of(x),
        name="deformable_conv2d",
    )
    return transform(ctx, found, "NCHW", a.get("out_layout") or layout)


def _pool(kind: str, rank: int) -> Converter:
    function = getattr(op.nn, f"{kind}_pool{rank}d")

    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        layout = a.layout
        x = transform(ctx, tensor(args[0]), layout, DATA[rank])
        options = {"count_include_pad": bool(a.count_include_pad)} if kind == "avg" else {}
        found = function(
            x,
            pool_size=_spread(a, "pool_size", rank),
            strides=_spread(a, "strides", rank),
            padding=padding_of(a, rank),
            dilation=_spread(a, "dilation", rank),
            ceil_mode=bool(a.ceil_mode),
            layout=DATA[rank],
            **options,
        )
        return transform(ctx, ctx.emit(found), DATA[rank], a.get("out_layout") or layout)

    return convert


def _global_pool(kind: str) -> Converter:
    function = op.max if kind == "max" else op.mean

    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        x = transform(ctx, tensor(args[0]), a.layout, "NCHW")
        found = ctx.emit(function(x, [2, 3], True))
        return transform(ctx, found, "NCHW", a.get("out_layout") or a.layout)

    return convert


def _adaptive_pool(kind: str, rank: int) -> Converter:
    def convert(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
        layout = a.layout
        x = transform(ctx, tensor(args[0]), layout, DATA[rank])
        size = list(a.ints("output_size")) or shape_of(x)[2:]
        size = size * rank if len(size) == 1 else size
        if all(n == 1 for n in size):
            reduce = op.max if kind == "max" else op.mean
            found = ctx.emit(reduce(x, list(range(2, 2 + rank)), True))
        elif kind == "avg":
            found = ctx.emit(getattr(op.nn, f"adaptive_avg_pool{rank}d")(x, size))
        else:
            name = "adaptive_pool" + ("" if rank == 2 else f"{rank}d")
            found = ctx.te(
                getattr(topi.nn, name), x, size, "max", DATA[rank], name="adaptive_max_pool"
            )
        return transform(ctx, found, DATA[rank], a.get("out_layout") or layout)

    return convert


def _batch_norm(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, *statistics = (tensor(v) for v in args)
    axis = axis_of(a.axis, rank_of(x))
    gamma, beta, mean, variance = statistics
    # Without scale or center, Relay ignores the vector that is given all the same.
    if not a.scale:
        gamma = ctx.emit(op.full(shape_of(gamma), ctx.scalar_like(1, gamma), dtype_of(gamma)))
    if not a.center:
        beta = ctx.emit(op.full(shape_of(beta), ctx.scalar_like(0, beta), dtype_of(beta)))
    found = op.nn.batch_norm(
        x, gamma, beta, mean, variance, axis=axis, epsilon=a.epsilon, training=False
    )
    found = ctx.emit(found)
    return (relax.TupleGetItem(found, 0), mean, variance)


def _layer_norm(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, gamma, beta = (tensor(v) for v in args)
    axis = axis_of(a.axis, rank_of(x))
    return op.nn.layer_norm(x, gamma, beta, [axis], a.epsilon, bool(a.center), bool(a.scale))


def _instance_norm(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, gamma, beta = (tensor(v) for v in args)
    rank = rank_of(x)
    axis = axis_of(a.axis, rank)
    axes = [i for i in range(1, rank) if i != axis]
    return op.nn.instance_norm(x, gamma, beta, axis, axes, a.epsilon, bool(a.center), bool(a.scale))


def _group_norm(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, gamma, beta = (tensor(v) for v in args)
    rank = rank_of(x)
    axis = axis_of(a.axis, rank)
    axes = [i for i in range(1, rank) if i != axis]
    return op.nn.group_norm(
        x, gamma, beta, int(a.num_groups), axis, axes, a.epsilon, bool(a.center), bool(a.scale)
    )


def _lrn(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return ctx.te(topi.nn.lrn, tensor(args[0]), a.size, a.axis, a.alpha, a.beta, a.bias, name="lrn")


def _prelu(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, slope = tensor(args[0]), tensor(args[1])
    axis = axis_of(a.axis, rank_of(x))
    scaled = ctx.emit(op.multiply(x, along(ctx, slope, axis, rank_of(x))))
    positive = ctx.emit(op.greater(x, ctx.scalar_like(0, x)))
    return op.where(positive, x, scaled)


def _cross_entropy(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Over rows; the mean of ``-sum(log(x) * y)``."""
    return _entropy(ctx, ctx.emit(op.log(tensor(args[0]))), tensor(args[1]))


def _cross_entropy_with_logits(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return _entropy(ctx, tensor(args[0]), tensor(args[1]))


def _entropy(ctx: Context, x: relax.Expr, y: relax.Expr) -> relax.Expr:
    total = ctx.emit(op.sum(ctx.emit(op.multiply(x, y))))
    rows = shape_of(x)[0]
    if not isinstance(rows, int):
        raise RelayError("a cross entropy over an open number of rows is not supported")
    return op.multiply(total, ctx.scalar_like(-1 / rows, x))


def _nll_loss(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    predictions, targets, weights = (tensor(v) for v in args)
    return op.nn.nll_loss(
        predictions, targets, weights, a.get("reduction", "mean"), int(a.ignore_index)
    )


def _dropout(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Nothing is dropped at inference; the mask, the second result, is not made."""
    return (tensor(args[0]),)


CONVERTERS: dict[str, Converter] = {
    **{f"nn.conv{rank}d": _conv(rank) for rank in DATA},
    **{f"nn.conv{rank}d_transpose": _conv_transpose(rank) for rank in DATA},
    **{f"nn.{k}_pool{rank}d": _pool(k, rank) for k in ("max", "avg") for rank in DATA},
    **{f"nn.global_{k}_pool2d": _global_pool(k) for k in ("max", "avg")},
    **{
        f"nn.adaptive_{k}_pool{rank}d": _adaptive_pool(k, rank)
        for k in ("max", "avg")
        for rank in DATA
    },
    "nn.batch_matmul": _matmul,
    "nn.batch_norm": _batch_norm,
    "nn.bias_add": _bias_add,
    "nn.cross_entropy": _cross_entropy,
    "nn.cross_entropy_with_logits": _cross_entropy_with_logits,
    "nn.deformable_conv2d": _deformable_conv2d,
    "nn.dense": _dense,
    "nn.dropout": _dropout,
    "nn.group_norm": _group_norm,
    "nn.instance_norm": _instance_norm,
    "nn.layer_norm": _layer_norm,
    "nn.leaky_relu": lambda ctx, args, a: op.nn.leakyrelu(tensor(args[0]), a.alpha),
    "nn.lrn": _lrn,
    "nn.matmul": _matmul,
    "nn.nll_loss": _nll_loss,
    "nn.prelu": _prelu,
    "nn.relu": lambda ctx, args, a: op.nn.relu(tensor(args[0])),
}
