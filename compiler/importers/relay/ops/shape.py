"""Another shape for the same elements: reshape, transpose, concatenate, pad, blocks."""

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
    fixed_shape,
    rank_of,
    shape_of,
    tensor,
)
from burnish.compiler.importers.relay.graph import RelayError
from burnish.compiler.importers.relay.layouts import transform

op = relax.op


def reshape_target(codes: Sequence[Any], shape: Sequence[Any], *, allow_zero: bool) -> list[Any]:
    """Relay's target shape written out: 0 copies a size, -1 is what is left over, -2 copies the
    rest, -3 merges two sizes, -4 splits one by the next two codes.
    """
    target: list[Any] = []
    unknown = None
    at, left = 0, list(codes)

    def take() -> Any:
        nonlocal at
        if at >= len(shape):
            raise RelayError(f"the target {list(codes)} reads more sizes than {list(shape)} has")
        at += 1
        return shape[at - 1]

    while left:
        code = left.pop(0)
        if not isinstance(code, int) or code > 0 or (code == 0 and allow_zero):
            target.append(code)
            at += 1
        elif code == 0:
            target.append(take())
        elif code == -1:
            if unknown is not None:
                raise RelayError(f"the target {list(codes)} leaves two sizes open")
            unknown = len(target)
            target.append(-1)
            at += 1
        elif code == -2:
            target += shape[at:]
            at = len(shape)
        elif code == -3:
            target.append(sizes.product([take(), take()]))
        elif code == -4 and len(left) >= 2:
            size, first, second = take(), left.pop(0), left.pop(0)
            if first == -1:
                first = sizes.quotient(size, second)
            elif second == -1:
                second = sizes.quotient(size, first)
            target += [first, second]
        else:
            raise RelayError(f"the target {list(codes)} is not understood")
    if unknown is not None:
        known = sizes.product([n for i, n in enumerate(target) if i != unknown])
        target[unknown] = sizes.quotient(sizes.product(shape), known)
    return target


def _reshape(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    codes = a.newshape
    if any(n is None for n in codes):
        raise RelayError("the target shape has an open size that nothing computes")
    return ctx.reshape(x, reshape_target(codes, shape_of(x), allow_zero=bool(a.get("allowzero"))))


def _reverse_reshape(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Codes and sizes are matched from the end."""
    x = tensor(args[0])
    codes = list(reversed(a.ints("newshape")))
    target = reshape_target(codes, shape_of(x)[::-1], allow_zero=False)
    return ctx.reshape(x, target[::-1])


def _reshape_like(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    have, want = shape_of(args[0]), shape_of(args[1])
    first, last = a.get("lhs_begin", 0), a.get("lhs_end", len(have))
    begin, end = a.get("rhs_begin", 0), a.get("rhs_end", len(want))
    first, last = (n + len(have) if n < 0 else n for n in (first, last))
    begin, end = (n + len(want) if n < 0 else n for n in (begin, end))
    return ctx.reshape(tensor(args[0]), [*have[:first], *want[begin:end], *have[last:]])


def _transpose(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    rank = rank_of(x)
    axes = a.get("axes") or tuple(reversed(range(rank)))
    return op.permute_dims(x, [axis_of(int(axis), rank) for axis in axes])


def _squeeze(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    axes = a.get("axis")
    if axes is None:
        return op.squeeze(x)
    return op.squeeze(x, [axis_of(int(n), rank_of(x)) for n in axes]) if axes else x


def _expand_dims(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    first = axis_of(a.axis, rank_of(x) + 1)
    return op.expand_dims(x, [first + n for n in range(a.get("num_newaxis", 1))])


def _split(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    axis = axis_of(a.axis, rank_of(x))
    where = a.indices_or_sections
    if isinstance(where, int):
        size = shape_of(x)[axis]
        if where < 1 or (isinstance(size, int) and size % where):
            raise RelayError(f"axis {axis} of {size} elements cannot be split in {where}")
        count = where
        if count == 1:
            return (x,)
    else:
        where = [int(n) for n in a.ints("indices_or_sections")]
        count = len(where) + 1
    parts = ctx.emit(op.split(x, where, axis))
    if count == 1:
        return (parts,)
    return tuple(relax.TupleGetItem(parts, index) for index in range(count))


def _joined(args: Sequence[Value]) -> list[relax.Expr]:
    if not args or not isinstance(args[0], tuple) or not args[0]:
        raise RelayError("a tuple of tensors is expected as argument")
    return [tensor(x) for x in args[0]]


def _concatenate(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    tensors = _joined(args)
    return op.concat(tensors, axis_of(a.axis, rank_of(tensors[0])))


def _stack(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    tensors = _joined(args)
    axis = axis_of(a.axis, rank_of(tensors[0]) + 1)
    return op.concat([ctx.emit(op.expand_dims(x, axis)) for x in tensors], axis)


def _meshgrid(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    tensors = _joined(args)
    if len(tensors) == 1:
        return (tensors[0],)
    grids = ctx.emit(op.meshgrid(tensors, a.get("indexing", "ij")))
    return tuple(relax.TupleGetItem(grids, index) for index in range(len(tensors)))


def _tile(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return op.tile(tensor(args[0]), list(a.ints("reps")))


def _repeat(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    return op.repeat(x, int(a.repeats), axis_of(int(a.get("axis", 0)), rank_of(x)))


def _reverse(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return op.flip(tensor(args[0]), axis_of(a.axis, rank_of(args[0])))


def _reverse_sequence(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return ctx.te(
        topi.reverse_sequence,
        tensor(args[0]),
        tensor(args[1]),
        a.seq_axis,
        a.batch_axis,
        name="reverse_sequence",
    )


def _broadcast_to(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return op.broadcast_to(tensor(args[0]), list(a.shape))


def _broadcast_to_like(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return op.broadcast_to(tensor(args[0]), shape_of(args[1]))


def _collapse_sum(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Sum over the axes that broadcasting would have added."""
    shape = list(a.ints("shape")) if a.get("shape") is not None else shape_of(args[1])
    return op.collapse_sum_to(tensor(args[0]), relax.ShapeExpr(shape))


def _layout_transform(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return transform(ctx, tensor(args[0]), a.src_layout, a.dst_layout)


def _batch_flatten(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    shape = shape_of(args[0])
    return ctx.reshape(tensor(args[0]), [shape[0], sizes.product(shape[1:])])


def pairs(value: Any, what: str) -> list[tuple[int, int]]:
    """``((before, after), ...)`` of an attribute."""
    if not isinstance(value, tuple) or not all(
        isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(n, int) for n in pair)
        for pair in value
    ):
        raise RelayError(f"the attribute {what} must hold pairs of integers, got {value!r:.60}")
    return [(int(low), int(high)) for low, high in value]


def _pad(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    widths = pairs(a.pad_width, "pad_width")
    return pad(ctx, tensor(args[0]), widths, a.get("pad_mode", "constant"), args[1])


def pad(
    ctx: Context, x: relax.Expr, widths: list[tuple[int, int]], mode: str, value: Value
) -> relax.Expr:
    """Pad each axis before and after, with ``value``, the edge, or a mirror image."""
    before, after = [low for low, _ in widths], [high for _, high in widths]
    if min(*before, *after, 0) < 0:
        raise RelayError(f"the padding {widths} is negative: slice instead")
    if mode == "constant":
        number = ctx.value(value)
        if number is not None and number.size == 1:
            flat = [n for pair in widths for n in pair]
            return op.nn.pad(x, flat, "constant", number.item())
        return _padded_by_tensor(ctx, x, before, after, value)
    if mode not in ("edge", "reflect"):
        raise RelayError(f"the padding mode {mode!r} is not supported")
    function = topi.nn.replicate_pad if mode == "edge" else topi.nn.reflect_pad
    return ctx.te(function, x, before, after, name=f"{mode}_pad")


def _padded_by_tensor(
    ctx: Context, x: relax.Expr, before: list[int], after: list[int], value: Value
) -> relax.Expr:
    """The padding's value is computed at run time: a mask picks it."""
    flat = [n for pair in zip(before, after, strict=True) for n in pair]
    data = ctx.emit(op.nn.pad(x, flat, "constant", 0))
    inside = ctx.emit(op.full(shape_of(x), ctx.const(1, "int8"), "int8"))
    mask = ctx.emit(op.nn.pad(inside, flat, "constant", 0))
    return op.where(ctx.emit(op.not_equal(mask, ctx.const(0, "int8"))), data, tensor(value))


def _mirror_pad(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    widths = pairs(a.pad_width, "pad_width")
    before, after = [low for low, _ in widths], [high for _, high in widths]
    return ctx.te(
        topi.nn.mirror_pad,
        tensor(args[0]),
        before,
        after,
        a.get("mode", "SYMMETRIC"),
        name="mirror_pad",
    )


def _dilate(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return ctx.te(
        topi.nn.dilate,
        tensor(args[0]),
        list(a.ints("strides")),
        float(a.get("dilation_value", 0.0)),
        name="dilate",
    )


def _space_to_depth(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = transform(ctx, tensor(args[0]), a.layout, "NCHW")
    n, c, h, w = shape_of(x)
    b = a.block_size
    x = ctx.reshape(x, [n, c, sizes.quotient(h, b), b, sizes.quotient(w, b), b])
    x = ctx.permute(x, [0, 3, 5, 1, 2, 4])
    x = ctx.reshape(x, [n, c * b * b, sizes.quotient(h, b), sizes.quotient(w, b)])
    return transform(ctx, x, "NCHW", a.layout)


def _depth_to_space(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = transform(ctx, tensor(args[0]), a.layout, "NCHW")
    n, c, h, w = shape_of(x)
    b = a.block_size
    deep = sizes.quotient(c, b * b)
    if a.get("mode", "DCR") == "DCR":
        x = ctx.permute(ctx.reshape(x, [n, b, b, deep, h, w]), [0, 3, 4, 1, 5, 2])
    else:
        x = ctx.permute(ctx.reshape(x, [n, deep, b, b, h, w]), [0, 1, 4, 2, 5, 3])
    return transform(ctx, ctx.reshape(x, [n, deep, h * b, w * b]), "NCHW", a.layout)


def _batch_to_space(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Blocks of the first axis become neighbours along the next axes; then their edges go."""
    x, block, crops = tensor(args[0]), list(a.ints("block_shape")), pairs(a.crops, "crops")
    shape, count = shape_of(x), len(block)
    spatial, rest = shape[1 : 1 + count], shape[1 + count :]
    batch = sizes.quotient(shape[0], sizes.product(block))
    x = ctx.reshape(x, [*block, batch, *spatial, *rest])
    order = [count]
    for axis in range(count):
        order += [count + 1 + axis, axis]
    x = ctx.permute(x, [*order, *range(2 * count + 1, 2 * count + 1 + len(rest))])
    grown = [n * b for n, b in zip(spatial, block, strict=True)]
    x = ctx.reshape(x, [batch, *grown, *rest])
    axes = [1 + i for i, pair in enumerate(crops) if pair != (0, 0)]
    if not axes:
        return x
    begin = [crops[i - 1][0] for i in axes]
    end = [grown[i - 1] - crops[i - 1][1] for i in axes]
    return op.strided_slice(x, axes, begin, end)


def _space_to_batch(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """The other way: padded, cut in blocks, and the places in a block go to the first axis."""
    x, block = tensor(args[0]), list(a.ints("block_shape"))
    count, rank = len(block), rank_of(x)
    widths = [(0, 0), *pairs(a.paddings, "paddings")]
    widths += [(0, 0)] * (rank - len(widths))
    x = pad(ctx, x, widths, "constant", ctx.scalar_like(float(a.get("pad_value", 0.0)), x))
    x = ctx.emit(x)
    batch, *sides = shape_of(x)
    cut: list[Any] = [batch]
    for n, b in zip(sides[:count], block, strict=True):
        cut += [sizes.quotient(n, b), b]
    x = ctx.reshape(x, [*cut, *sides[count:]])
    order = [*range(2, 2 * count + 1, 2), 0, *range(1, 2 * count + 1, 2)]
    x = ctx.permute(x, [*order, *range(2 * count + 1, 2 * count + 1 + rank - 1 - count)])
    small = [sizes.quotient(n, b) for n, b in zip(sides[:count], block, strict=True)]
    return ctx.reshape(x, [sizes.product([batch, *block]), *small, *sides[count:]])


def _sliding_window(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    window, strides = list(a.ints("window_shape")), list(a.ints("strides"))
    return ctx.te(
        topi.sliding_window, tensor(args[0]), a.axis, window, strides, name="sliding_window"
    )


def _shape_of(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return ctx.of_sizes(sizes.of_list(shape_of(args[0])), a.get("dtype") or "int32")


def _ndarray_size(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    total = sizes.of_list([sizes.product(shape_of(args[0]))]).reshape(())
    return ctx.of_sizes(total, a.get("dtype") or "int32")


def _fifo_buffer(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """The buffer with the new data at its end, its oldest gone."""
    data, buffer = tensor(args[0]), tensor(args[1])
    axis = axis_of(a.axis, rank_of(data))
    fresh, length = fixed_shape(data)[axis], fixed_shape(buffer)[axis]
    both = ctx.emit(op.concat([buffer, data], axis))
    return op.strided_slice(both, [axis], [fresh], [fresh + length])


def _einsum(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return op.einsum(_joined(args), a.equation)


CONVERTERS: dict[str, Converter] = {
    "broadcast_to": _broadcast_to,
    "broadcast_to_like": _broadcast_to_like,
    "collapse_sum_like": _collapse_sum,
    "collapse_sum_to": _collapse_sum,
    "concatenate": _concatenate,
    "contrib_reverse_reshape": _reverse_reshape,
    "einsum": _einsum,
    "expand_dims": _expand_dims,
    "layout_transform": _layout_transform,
    "meshgrid": _meshgrid,
    "ndarray_size": _ndarray_size,
    "nn.batch_flatten": _batch_flatten,
    "nn.batch_to_space_nd": _batch_to_space,
    "nn.depth_to_space": _depth_to_space,
    "nn.dilate": _dilate,
    "nn.fifo_buffer": _fifo_buffer,
    "nn.mirror_pad": _mirror_pad,
    "nn.pad": _pad,
    "nn.space_to_batch_nd": _space_to_batch,
    "nn.space_to_depth": _space_to_depth,
    "repeat": _repeat,
    "reshape": _reshape,
    "reshape_like": _reshape_like,
    "reverse": _reverse,
    "reverse_sequence": _reverse_sequence,
    "shape_of": _shape_of,
    "sliding_window": _sliding_window,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
}
