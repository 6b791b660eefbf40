"""Detection: boxes, anchors, suppression, regions of interest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from tvm import relax, topi

from burnish.compiler.importers.relay import sizes
from burnish.compiler.importers.relay.context import (
    Attributes,
    Context,
    Converter,
    Value,
    fixed_shape,
    shape_of,
    tensor,
)
from burnish.compiler.importers.relay.graph import RelayError

op = relax.op


def _get_valid_counts(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    threshold = _number(ctx, args, 1, a, "score_threshold", 0.0)
    found = op.vision.get_valid_counts(
        tensor(args[0]), threshold, int(a.id_index), int(a.score_index)
    )
    return _fields(ctx, found, 3)


def _number(
    ctx: Context, args: Sequence[Value], index: int, a: Attributes, name: str, default: float
) -> float:
    """A setting that is an attribute in old files and an argument in new ones."""
    if index < len(args):
        return float(ctx.scalar(args[index], f"the setting {name}"))
    return float(a.get(name, default))


def _fields(ctx: Context, found: relax.Expr, count: int) -> Value:
    bound = ctx.emit(found)
    return tuple(relax.TupleGetItem(bound, index) for index in range(count))


def _non_max_suppression(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Arguments: data, valid_count, indices, max_output_size, iou_threshold."""
    data, count, indices = (tensor(v) for v in args[:3])
    most = int(_number(ctx, args, 3, a, "max_output_size", -1))
    overlap = _number(ctx, args, 4, a, "iou_threshold", 0.5)
    several = bool(a.get("return_indices", True))
    found = op.vision.non_max_suppression(
        data,
        count,
        indices,
        most,
        overlap,
        bool(a.force_suppress),
        int(a.top_k),
        int(a.coord_start),
        int(a.score_index),
        int(a.id_index),
        several,
        bool(a.invalid_to_bottom),
    )
    return _fields(ctx, found, 2) if several else found


def _multibox_prior(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Anchors of a feature map; they depend on its shape alone, and are constants."""
    height, width = fixed_shape(args[0])[2:4]
    lengths, ratios = [float(n) for n in a.get("sizes")], [float(n) for n in a.ratios]
    steps = [float(n) for n in a.steps]
    offsets = [float(n) for n in a.offsets]
    step_h = steps[0] if steps[0] > 0 else 1 / height
    step_w = steps[1] if steps[1] > 0 else 1 / width
    rows = (np.arange(height) + offsets[0]) * step_h
    columns = (np.arange(width) + offsets[1]) * step_w
    shapes = [(n * height / width / 2, n / 2) for n in lengths]
    shapes += [
        (lengths[0] * height / width * math.sqrt(r) / 2, lengths[0] / math.sqrt(r) / 2)
        for r in ratios[1:]
    ]
    y, x = np.meshgrid(rows, columns, indexing="ij")
    boxes = [np.stack([x - w, y - h, x + w, y + h], -1) for w, h in shapes]
    anchors = np.stack(boxes, 2).reshape(1, -1, 4).astype("float32")
    if a.get("clip"):
        anchors = anchors.clip(0, 1)
    return ctx.array(anchors, "anchors")


def _multibox_transform_loc(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Best class and box for each anchor; those above the threshold first, others -1."""
    scores, offsets, anchors = (tensor(v) for v in args)
    batch, classes, count = fixed_shape(scores)
    best = ctx.emit(op.max(ctx.emit(op.strided_slice(scores, [1], [1], [classes])), [1]))
    kind = ctx.emit(op.argmax(ctx.emit(op.strided_slice(scores, [1], [1], [classes])), 1))
    kept = ctx.emit(op.greater_equal(best, ctx.const(float(a.threshold), "float32")))
    boxes = _decoded(ctx, ctx.reshape(offsets, [batch, count, 4]), anchors, a)
    parts = [
        ctx.emit(op.expand_dims(ctx.emit(op.astype(kind, "float32")), 2)),
        ctx.emit(op.expand_dims(best, 2)),
        boxes,
    ]
    rows = ctx.emit(op.concat(parts, 2))
    shown = ctx.emit(op.expand_dims(kept, 2))
    nothing = ctx.const(-1.0, "float32")
    rows = ctx.emit(op.where(shown, rows, nothing))
    # A stable sort brings the kept ones to the front.
    order = ctx.emit(op.astype(kept, "int32"))
    rank = ctx.emit(op.subtract(ctx.emit(op.cumsum(order, 1)), ctx.const(1, "int32")))
    total = ctx.emit(op.sum(order, [1]))
    dropped = ctx.emit(op.subtract(ctx.const(1, "int32"), order))
    behind = ctx.emit(op.subtract(ctx.emit(op.cumsum(dropped, 1)), ctx.const(1, "int32")))
    behind = ctx.emit(op.add(behind, ctx.emit(op.expand_dims(total, 1))))
    place = ctx.emit(op.where(kept, rank, behind))
    place = ctx.emit(op.broadcast_to(ctx.emit(op.expand_dims(place, 2)), [batch, count, 6]))
    empty = ctx.emit(op.full([batch, count, 6], nothing, "float32"))
    sorted_rows = ctx.emit(op.scatter_elements(empty, place, rows, 1, "update"))
    return (sorted_rows, total)


def _decoded(ctx: Context, offsets: relax.Expr, anchors: relax.Expr, a: Attributes) -> relax.Expr:
    """Boxes (left, top, right, bottom) of anchors moved by SSD's four numbers."""
    variances = [float(n) for n in a.variances]

    def column(x: relax.Expr, index: int) -> relax.Expr:
        return ctx.emit(op.strided_slice(x, [2], [index], [index + 1]))

    def times(x: relax.Expr, number: float) -> relax.Expr:
        return ctx.emit(op.multiply(x, ctx.const(number, "float32")))

    low, high = [column(anchors, i) for i in (0, 1)], [column(anchors, i) for i in (2, 3)]
    ends: dict[str, list[relax.Expr]] = {"low": [], "high": []}
    for axis in (0, 1):
        size = ctx.emit(op.subtract(high[axis], low[axis]))
        center = times(ctx.emit(op.add(high[axis], low[axis])), 0.5)
        moved = ctx.emit(op.multiply(times(column(offsets, axis), variances[axis]), size))
        center = ctx.emit(op.add(moved, center))
        grown = ctx.emit(op.exp(times(column(offsets, axis + 2), variances[axis + 2])))
        half = times(ctx.emit(op.multiply(grown, size)), 0.5)
        ends["low"].append(ctx.emit(op.subtract(center, half)))
        ends["high"].append(ctx.emit(op.add(center, half)))
    boxes = ctx.emit(op.concat([*ends["low"], *ends["high"]], 2))
    return ctx.emit(op.clip(boxes, 0.0, 1.0)) if a.get("clip") else boxes


def _yolo_reorg(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """Darknet's reorganization: element by element as its source has it."""
    x = tensor(args[0])
    n, c, h, w = shape_of(x)
    s = int(a.stride)
    fixed = fixed_shape(x)
    if fixed[2] % s or fixed[3] % s or fixed[1] % (s * s):
        raise RelayError(f"shape {fixed} is no multiple of the stride {s}")
    deep = sizes.quotient(c, s * s)
    # The input's memory is read as [n, deep, h * s, w * s], and that in blocks of s by s.
    x = ctx.permute(ctx.reshape(x, [n, deep, h, s, w, s]), [0, 3, 5, 1, 2, 4])
    return ctx.reshape(x, [n, c * s * s, sizes.quotient(h, s), sizes.quotient(w, s)])


def _roi_align(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    if a.get("layout", "NCHW") != "NCHW":
        raise RelayError(f"the layout {a.layout} is not supported")
    mode = {0: "avg", 1: "max"}.get(a.get("mode", 0), a.get("mode", 0))
    return ctx.te(
        topi.vision.roi_align_nchw,
        tensor(args[0]),
        tensor(args[1]),
        list(a.ints("pooled_size")),
        a.spatial_scale,
        mode,
        int(a.get("sample_ratio", -1)),
        bool(a.get("aligned")),
        name="roi_align",
    )


def _roi_pool(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    if a.get("layout", "NCHW") != "NCHW":
        raise RelayError(f"the layout {a.layout} is not supported")
    size = list(a.ints("pooled_size"))
    return ctx.te(
        topi.vision.roi_pool_nchw,
        tensor(args[0]),
        tensor(args[1]),
        size,
        a.spatial_scale,
        name="roi_pool",
    )


CONVERTERS: dict[str, Converter] = {
    "vision.get_valid_counts": _get_valid_counts,
    "vision.multibox_prior": _multibox_prior,
    "vision.multibox_transform_loc": _multibox_transform_loc,
    "vision.non_max_suppression": _non_max_suppression,
    "vision.roi_align": _roi_align,
    "vision.roi_pool": _roi_pool,
    "vision.yolo_reorg": _yolo_reorg,
}
