"""Which elements: slices, gathers, scatters, sorting, and searching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, te, tirx, topi

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
from burnish.compiler.importers.relay.ops.elementwise import cast

op = relax.op


def _strided_slice(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    begin, end = list(a.ints("begin")), list(a.ints("end"))
    strides = list(a.get("strides") or ())
    axes = a.get("axes")
    axes = list(range(len(begin))) if axes is None else [int(n) for n in axes]
    return sliced(ctx, x, begin, end, strides, axes, a.get("slice_mode", "end"))


def sliced(
    ctx: Context,
    x: relax.Expr,
    begin: list[Any],
    end: list[Any],
    strides: list[Any],
    axes: list[int],
    mode: str,
) -> relax.Expr:
    """Ranges along axes. In mode ``size`` the ends are sizes, negative ones for all the rest."""
    shape = shape_of(x)
    strides = strides + [strides[-1] if len(strides) == 1 else 1] * (len(begin) - len(strides))
    taken: list[tuple[int, Any, Any, Any]] = []
    for axis, low, high, step in zip(axes, begin, end, strides, strict=False):
        axis = axis_of(axis, len(shape))
        size = shape[axis]
        if mode == "size":
            step = 1
            low = low + size if isinstance(low, int) and low < 0 else low
            high = size if isinstance(high, int) and high < 0 else low + high
        if all(isinstance(n, int) for n in (low, high, step, size)):
            start, stop, step = slice(low, high, step).indices(size)
            if (start, stop, step) == (0, size, 1):
                continue
            # A negative stop means the front edge of a walk backwards, not a count from the end.
            low, high = start, stop if stop >= 0 else -size - 1
            if (stop - start) * step <= 0:
                high = low
        elif isinstance(low, int) and low == 0 and step == 1 and _whole(high, size):
            continue
        taken.append((axis, low, high, step))
    if not taken:
        return x
    parts = [list(part) for part in zip(*taken, strict=True)]
    return ctx.emit(op.strided_slice(x, parts[0], parts[1], parts[2], parts[3]))


def _whole(high: Any, size: Any) -> bool:
    """Whether a range's end takes all of an open axis."""
    if isinstance(high, int):
        return high >= 2**31 - 1
    return bool(tirx.analysis.expr_deep_equal(high, size)) if not isinstance(size, int) else False


def _strided_set(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, values = tensor(args[0]), tensor(args[1])
    limits = [ctx.needed(arg, "a range's limit").tolist() for arg in args[2:5]]
    return ctx.te(_set_range, x, values, *limits, name="strided_set")


def _set_range(
    x: te.Tensor, values: te.Tensor, begin: list[int], end: list[int], strides: list[int]
) -> te.Tensor:
    shape = [int(n) for n in x.shape]
    strides = strides or [1] * len(begin)
    ranges = [
        range(n)[slice(*limits)] for n, *limits in zip(shape, begin, end, strides, strict=False)
    ]

    def at(*place: Any) -> Any:
        inside: Any = tirx.const(True, "bool")
        index = []
        for axis, where in enumerate(place):
            if axis >= len(ranges):
                index.append(where)
                continue
            taken = ranges[axis]
            away = where - taken.start
            number = tirx.floordiv(away, taken.step)
            inside = tirx.all(
                inside, tirx.floormod(away, taken.step) == 0, number >= 0, number < len(taken)
            )
            index.append(tirx.max(tirx.min(number, len(taken) - 1), 0))
        return tirx.if_then_else(inside, values(*index), x(*place))

    return te.compute(x.shape, at, name="strided_set")


def _slice_like(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x, want = tensor(args[0]), shape_of(args[1])
    axes = a.get("axes") or tuple(range(len(want)))
    axes = [axis_of(int(axis), rank_of(x)) for axis in axes]
    ends = [want[axis] for axis in axes]
    return sliced(ctx, x, [0] * len(axes), ends, [1] * len(axes), axes, "end")


def _take(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Indices out of range read the edge (``clip``, the default), or count on (``wrap``)."""
    x, index = tensor(args[0]), tensor(args[1])
    mode = a.get("mode", "clip")
    axis, batch = a.get("axis"), int(a.get("batch_dims") or 0)
    if mode not in ("clip", "wrap", "fast"):
        raise RelayError(f"the mode {mode!r} is not supported")
    if not dtype_of(index).startswith(("int", "uint")):
        index = cast(ctx, index, "int32")
    if batch:
        place = None if axis is None else int(axis)
        return ctx.te(topi.take, x, index, place, batch, mode, name="take")
    if axis is None:
        x, axis = ctx.reshape(x, [-1]), 0
    axis = axis_of(int(axis), rank_of(x))
    size, fixed = shape_of(x)[axis], ctx.value(index)
    if isinstance(size, int) and fixed is not None and size > 0:
        place = np.clip(fixed, 0, size - 1) if mode != "wrap" else np.mod(fixed, size)
        return op.take(x, ctx.const(place.astype(fixed.dtype)), axis, mode="fast")
    return op.take(x, index, axis, mode=mode)


def _gather(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    axis = axis_of(int(a.axis), rank_of(x))
    return ctx.te(topi.gather, x, axis, tensor(args[1]), name="gather")


def _gather_nd(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return ctx.te(
        topi.gather_nd,
        tensor(args[0]),
        tensor(args[1]),
        int(a.get("batch_dims", 0)),
        name="gather_nd",
    )


def _scatter(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    axis = axis_of(int(a.get("axis", 0)), rank_of(x))
    how = a.get("reduction", "update")
    return op.scatter_elements(x, tensor(args[1]), tensor(args[2]), axis, how)


def _scatter_nd(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Relay has the axis of coordinates first, Relax last."""
    index = tensor(args[1])
    rank = rank_of(index)
    index = ctx.permute(index, [*range(1, rank), 0])
    return op.scatter_nd(tensor(args[0]), index, tensor(args[2]), a.get("mode", "update"))


def _adv_index(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    data, *index = (tensor(x) for x in args[0])
    return op.index_tensor(data, index)


def _sequence_mask(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return ctx.te(
        topi.sequence_mask,
        tensor(args[0]),
        tensor(args[1]),
        float(a.get("mask_value", 0.0)),
        int(a.get("axis", 0)),
        name="sequence_mask",
    )


def _unravel_index(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    index = tensor(args[0])
    shape = [int(n) for n in ctx.needed(args[1], "the shape").ravel()]
    rows = []
    for axis in range(len(shape)):
        inner = int(np.prod(shape[axis + 1 :], dtype=np.int64))
        row = ctx.emit(op.floor_divide(index, ctx.scalar_like(inner, index)))
        row = ctx.emit(op.floor_mod(row, ctx.scalar_like(shape[axis], index)))
        rows.append(ctx.emit(op.expand_dims(row, 0)))
    return op.concat(rows, 0)


def _matrix_set_diag(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    right = ["LEFT", "RIGHT"]
    align = f"{right[bool(a.super_diag_right_align)]}_{right[bool(a.sub_diag_right_align)]}"
    return ctx.te(
        topi.matrix_set_diag,
        tensor(args[0]),
        tensor(args[1]),
        (int(a.k1), int(a.k2)),
        align,
        name="matrix_set_diag",
    )


def _trilu(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    diagonal = int(ctx.scalar(args[1], "the diagonal"))
    x = tensor(args[0])
    return (op.triu if a.get("upper", True) else op.tril)(x, diagonal)


def _invert_permutation(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Place ``p[i]`` holds ``i``."""
    places = tensor(args[0])
    (count,) = fixed_shape(places)
    index = ctx.const(np.arange(count), dtype_of(places))
    return op.scatter_elements(places, places, index, 0, "update")


def _searchsorted(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return ctx.te(
        topi.searchsorted,
        tensor(args[0]),
        tensor(args[1]),
        bool(a.get("right")),
        a.get("dtype") or "int32",
        name="searchsorted",
    )


def _sparse_to_dense(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    index, values = tensor(args[0]), tensor(args[1])
    fill = cast(ctx, tensor(args[2]), dtype_of(values)) if len(args) > 2 else None
    fill = ctx.scalar_like(0, values) if fill is None else fill
    shape = list(a.ints("output_shape"))
    empty = ctx.emit(op.full(shape, fill, dtype_of(values)))
    if rank_of(index) < 2:
        count = 1 if rank_of(index) == 0 or len(shape) > 1 else fixed_shape(index)[0]
        index = ctx.reshape(index, [count, -1])
    rows = fixed_shape(index)[0]
    if rank_of(values) == 0:
        values = ctx.emit(op.broadcast_to(values, [rows]))
    return op.scatter_nd(empty, cast(ctx, index, "int64"), values, "update")


def _one_hot(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Indices out of range are off everywhere."""
    index = tensor(args[0])
    return one_hot(ctx, index, args[1], args[2], int(a.depth), int(a.axis), a.dtype)


def one_hot(
    ctx: Context, index: relax.Expr, on: Value, off: Value, depth: int, axis: int, dtype: str
) -> relax.Expr:
    rank = rank_of(index) + 1
    axis = axis_of(axis, rank)
    shape = [1] * rank
    shape[axis] = depth
    places = ctx.const(np.arange(depth).reshape(shape), dtype_of(index))
    hit = ctx.emit(op.equal(ctx.emit(op.expand_dims(index, axis)), places))
    return op.where(hit, cast(ctx, tensor(on), dtype), cast(ctx, tensor(off), dtype))


def _sort(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    return op.sort(x, axis_of(int(a.axis), rank_of(x)), not a.is_ascend)


def _argsort(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    x = tensor(args[0])
    dtype = a.get("dtype") or "int32"
    order = ctx.emit(op.argsort(x, axis_of(int(a.axis), rank_of(x)), not a.is_ascend, "int32"))
    return cast(ctx, order, dtype)


def _topk(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    return topk(ctx, tensor(args[0]), int(a.k), a)


def topk(ctx: Context, x: relax.Expr, count: int, a: Attributes) -> Value:
    """The ``count`` first of an axis in order; as values, places, or both."""
    axis = axis_of(int(a.axis), rank_of(x))
    size = shape_of(x)[axis]
    count = size if count < 1 else count
    what = a.get("ret_type", "both")
    found = ctx.emit(op.topk(x, count, axis, what, not a.is_ascend, a.get("dtype") or "int32"))
    if what != "both":
        return found
    return (relax.TupleGetItem(found, 0), relax.TupleGetItem(found, 1))


CONVERTERS: dict[str, Converter] = {
    "adv_index": _adv_index,
    "argsort": _argsort,
    "gather": _gather,
    "gather_nd": _gather_nd,
    "invert_permutation": _invert_permutation,
    "matrix_set_diag": _matrix_set_diag,
    "one_hot": _one_hot,
    "scatter": _scatter,
    "scatter_elements": _scatter,
    "scatter_nd": _scatter_nd,
    "searchsorted": _searchsorted,
    "sequence_mask": _sequence_mask,
    "slice_like": _slice_like,
    "sort": _sort,
    "sparse_to_dense": _sparse_to_dense,
    "strided_set": _strided_set,
    "strided_slice": _strided_slice,
    "take": _take,
    "topk": _topk,
    "trilu": _trilu,
    "unravel_index": _unravel_index,
}
