"""Operators over images that TVM lacks, or gets wrong in some forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.compiler.importers.onnx.converters.integer import conv_pads
from burnish.compiler.importers.onnx.emit import const, fixed, kernel, op, ranked, setting
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts


@converts("SpaceToDepth")
def space_to_depth(node: Node) -> Result:
    """``[N, C, H, W] -> [N, C b b, H / b, W / b]``; blocks before channels, or after (CRD)."""
    block = int(node.attrs["blocksize"])
    crd = str(node.attrs.get("mode", "DCR")) == "CRD"
    n, c, h, w = ranked(node)
    half = [_floordiv(size, block) for size in (h, w)]
    x = node.emit(op.reshape(node.inputs[0], [n, c, half[0], block, half[1], block]))
    order = [0, 1, 3, 5, 2, 4] if crd else [0, 3, 5, 1, 2, 4]
    return op.reshape(node.emit(op.permute_dims(x, order)), [n, c * block * block, *half])


@converts("ConvTranspose")
def conv_transpose(node: Node) -> Result:
    """With ``output_shape`` or ``auto_pad``: pads that give that shape; else left to TVM."""
    attrs = node.attrs
    auto = str(attrs.get("auto_pad", "NOTSET"))
    wanted = attrs.get("output_shape")
    if wanted is None and auto not in ("SAME_UPPER", "SAME_LOWER"):
        return None
    shape = ranked(node)
    axes = len(shape) - 2
    sizes = fixed(node, shape[2:], "the sizes of its input")
    weight = fixed(node, ranked(node, 1), "its weights")
    strides = list(attrs.get("strides") or [1] * axes)
    dilations = list(attrs.get("dilations") or [1] * axes)
    extra = list(attrs.get("output_padding") or [0] * axes)
    targets = wanted or [n * s for n, s in zip(sizes, strides, strict=True)]
    targets = [int(n) for n in targets][-axes:]
    begin, end, behind = [], [], []
    for i in range(axes):
        reach = (weight[2 + i] - 1) * dilations[i] + 1
        total = strides[i] * (sizes[i] - 1) + extra[i] + reach - targets[i]
        behind.append(max(-total, 0))
        total = max(total, 0)
        first = total // 2 if auto == "SAME_UPPER" else total - total // 2
        begin.append(first)
        end.append(total - first)
    make, layout, weights = {
        1: (op.nn.conv1d_transpose, "NCW", "IOW"),
        2: (op.nn.conv2d_transpose, "NCHW", "IOHW"),
        3: (op.nn.conv3d_transpose, "NCDHW", "IODHW"),
    }[axes]
    if any(e >= s for e, s in zip(extra, strides, strict=True)):
        raise Refused(f"output_padding={extra} with strides={strides}")
    y = node.emit(
        make(
            node.inputs[0],
            node.inputs[1],
            strides=strides,
            padding=begin + end,
            output_padding=extra,
            dilation=dilations,
            groups=int(attrs.get("group", 1)),
            data_layout=layout,
            kernel_layout=weights,
        )
    )
    if any(behind):
        widths = [0, 0, 0, 0] + [n for count in behind for n in (0, count)]
        y = node.emit(op.nn.pad(y, widths, "constant", 0.0))
    if node.input(2) is not None:
        y = op.add(y, op.reshape(node.input(2), [1, -1] + [1] * axes))
    return y


@converts("MaxPool", since=8)
def max_pool(node: Node) -> Result:
    """With the places of the maxima as a second output; else left to TVM."""
    if not node.wants(1):
        return None
    attrs, shape = node.attrs, ranked(node)
    axes = len(shape) - 2
    sizes = fixed(node, shape[2:], "the sizes of its input")
    window = [int(n) for n in attrs["kernel_shape"]]
    strides = list(attrs.get("strides") or [1] * axes)
    dilations = list(attrs.get("dilations") or [1] * axes)
    pads = conv_pads(node, sizes, window, strides, dilations)
    rounded = math.ceil if attrs.get("ceil_mode") else math.floor
    out = []
    for i in range(axes):
        reach = (window[i] - 1) * dilations[i] + 1
        count = rounded((sizes[i] + pads[i] + pads[axes + i] - reach) / strides[i]) + 1
        if attrs.get("ceil_mode") and (count - 1) * strides[i] >= sizes[i] + pads[i]:
            count -= 1
        out.append(count)
    column = int(attrs.get("storage_order", 0)) == 1
    make = _pool_places(sizes, window, strides, dilations, pads, out, column=column)
    made = kernel(node, make, node.inputs[0], name="max_pool_places")
    return tuple(node.emit(relax.TupleGetItem(made, i)) for i in range(2))


def _pool_places(
    sizes: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    out: Sequence[int],
    *,
    column: bool,
) -> Callable[[te.Tensor], list[te.Tensor]]:
    """Maxima, and the place of the first of each in the whole tensor laid out flat."""
    axes, area = len(sizes), math.prod(sizes)

    def make(x: te.Tensor) -> list[te.Tensor]:
        batch, channels = x.shape[:2]
        dtype = str(x.dtype)
        shape = [batch, channels, *out]

        def points(at: Sequence[Any]) -> tuple[list[Any], list[Any], Expr]:
            ks = [te.reduce_axis((0, n), f"k{i}") for i, n in enumerate(window)]
            raw = [at[2 + i] * strides[i] - pads[i] + ks[i] * dilations[i] for i in range(axes)]
            inside = tirx.all(*[tirx.all(p >= 0, p < n) for p, n in zip(raw, sizes, strict=True)])
            near = [tirx.max(tirx.min(p, n - 1), 0) for p, n in zip(raw, sizes, strict=True)]
            return ks, near, inside

        def largest(*at: Any) -> Expr:
            ks, near, inside = points(at)
            lowest = tirx.min_value(dtype)
            return te.max(tirx.Select(inside, x(*at[:2], *near), lowest), axis=ks)

        top = te.compute(shape, largest, name="top")

        def first(*at: Any) -> Expr:
            ks, near, inside = points(at)
            flat: Any = tirx.const(0, "int64")
            for place, n in zip(near, sizes, strict=True):
                flat = flat * n + place.astype("int64")
            hit = tirx.all(inside, x(*at[:2], *near) == top(*at))
            return te.min(tirx.Select(hit, flat, tirx.const(area, "int64")), axis=ks)

        place = te.compute(shape, first, name="first")

        def whole(*at: Any) -> Expr:
            here = place(*at)
            if column:
                here = _by_columns(here, sizes)
            plane = at[0].astype("int64") * channels + at[1].astype("int64")
            return plane * area + here

        return [top, te.compute(shape, whole, name="places")]

    return make


def _by_columns(flat: Expr, sizes: Sequence[int]) -> Expr:
    """A place counted with the first axis fastest, from one with the last fastest."""
    coordinates = []
    for n in reversed(sizes):
        coordinates.append(tirx.floormod(flat, tirx.const(n, "int64")))
        flat = tirx.floordiv(flat, tirx.const(n, "int64"))
    total: Any = tirx.const(0, "int64")
    step = 1
    for n, place in zip(sizes, reversed(coordinates), strict=True):
        total = total + place * step
        step *= n
    return total


@converts("MaxUnpool", since=9)
def max_unpool(node: Node) -> Result:
    """Values at their places, zeros elsewhere; ``output_shape`` adds zeros behind each axis."""
    attrs = node.attrs
    shape = fixed(node, ranked(node), "the sizes of its input")
    axes = len(shape) - 2
    window = [int(n) for n in attrs["kernel_shape"]]
    strides = list(attrs.get("strides") or [1] * axes)
    pads = list(attrs.get("pads") or [0] * (2 * axes))
    natural = shape[:2] + [
        (shape[2 + i] - 1) * strides[i] - pads[i] - pads[axes + i] + window[i] for i in range(axes)
    ]
    target = natural
    if node.input(2) is not None:
        target = [int(n) for n in setting(node, 2, "output_shape").ravel()]
    dtype = node.dtype()
    zeros = op.broadcast_to(const(0, dtype), relax.ShapeExpr([math.prod(natural)]))
    flat = [node.emit(op.reshape(x, [-1])) for x in node.inputs[:2]]
    made = op.scatter_elements(node.emit(zeros), flat[1], flat[0], 0)
    y = node.emit(op.reshape(node.emit(made), natural))
    if target == natural:
        return y
    if any(t < n for t, n in zip(target, natural, strict=True)):
        raise Refused(f"output_shape {target} is below {natural}")
    widths = [n for t, s in zip(target, natural, strict=True) for n in (0, t - s)]
    return op.nn.pad(y, widths, "constant", 0.0)


@converts("Col2Im", since=18)
def col2im(node: Node) -> Result:
    """``[N, C prod(block), L] -> [N, C, *image]``: blocks added up where they overlap."""
    image = [int(n) for n in setting(node, 1, "image_shape").ravel()]
    block = [int(n) for n in setting(node, 2, "block_shape").ravel()]
    axes = len(image)
    strides = list(node.attrs.get("strides") or [1] * axes)
    dilations = list(node.attrs.get("dilations") or [1] * axes)
    pads = list(node.attrs.get("pads") or [0] * (2 * axes))
    steps = [
        (image[i] + pads[i] + pads[axes + i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1
        for i in range(axes)
    ]
    shape = ranked(node)
    channels = _floordiv(shape[1], math.prod(block))

    def make(x: te.Tensor) -> te.Tensor:
        def element(n: Any, c: Any, *at: Any) -> Expr:
            ks = [te.reduce_axis((0, extent), f"k{i}") for i, extent in enumerate(block)]
            row: Any = c
            column: Any = tirx.const(0, "int64")
            allowed = []
            for i in range(axes):
                row = row * block[i] + ks[i]
                off = at[i] + pads[i] - ks[i] * dilations[i]
                step = tirx.floordiv(off, strides[i])
                allowed += [tirx.floormod(off, strides[i]) == 0, step >= 0, step < steps[i]]
                near = tirx.max(tirx.min(step, steps[i] - 1), 0)
                column = column * steps[i] + near.astype("int64")
            value = x(n, row, column)
            zero = tirx.const(0, str(x.dtype))
            return te.sum(tirx.Select(tirx.all(*allowed), value, zero), axis=ks)

        return te.compute([x.shape[0], channels, *image], element, name="col2im")

    return kernel(node, make, node.inputs[0], name="col2im")


@converts("DeformConv", since=19)
def deform_conv(node: Node) -> Result:
    """``X, W, offset, bias, mask -> Y``: samples at moved places, then one matrix product."""
    attrs = node.attrs
    n, c, h, w = ranked(node)
    out, per_group, kh, kw = fixed(node, ranked(node, 1), "its weights")
    groups, moved = int(attrs.get("group", 1)), int(attrs.get("offset_group", 1))
    strides = list(attrs.get("strides") or [1, 1])
    dilations = list(attrs.get("dilations") or [1, 1])
    pads = list(attrs.get("pads") or [0] * 4)
    oh, ow = ranked(node, 2)[2:]
    (channels,) = fixed(node, [c], "the number of channels")
    mask = node.input(4)

    def sample(x: te.Tensor, offset: te.Tensor, *masks: te.Tensor) -> te.Tensor:
        dtype = str(x.dtype)

        def element(b: Any, ch: Any, k: Any, y: Any, z: Any) -> Expr:
            og = tirx.floordiv(ch, channels // moved)
            first = (og * (kh * kw) + k) * 2
            place = []
            for axis, (o, extent) in enumerate(((y, kw), (z, kw))):
                step = tirx.floordiv(k, extent) if axis == 0 else tirx.floormod(k, extent)
                base = o * strides[axis] - pads[axis] + step * dilations[axis]
                place.append(base.astype(dtype) + offset(b, first + axis, y, z))
            value = bilinear(x, [b, ch], place, (h, w))
            if masks:
                value = value * masks[0](b, og * (kh * kw) + k, y, z)
            return value

        return te.compute([n, channels, kh * kw, oh, ow], element, name="samples")

    given = [node.inputs[0], node.inputs[2], *([] if mask is None else [mask])]
    samples = kernel(node, sample, *given, name="deform_samples")
    rows = (channels // groups) * kh * kw
    columns = node.emit(op.reshape(samples, [n, groups, rows, oh * ow]))
    weights = node.emit(op.reshape(node.inputs[1], [1, groups, out // groups, per_group * kh * kw]))
    y = node.emit(op.matmul(weights, columns))
    y = node.emit(op.reshape(y, [n, out, oh, ow]))
    if node.input(3) is not None:
        y = op.add(y, op.reshape(node.input(3), [1, -1, 1, 1]))
    return y


def bilinear(
    x: te.Tensor, front: Sequence[Any], place: Sequence[Expr], sizes: Sequence[Any]
) -> Expr:
    """``x[*front, y, x]`` between elements; 0 outside the image."""
    dtype = str(x.dtype)
    lows = [tirx.floor(p) for p in place]
    parts = [p - low for p, low in zip(place, lows, strict=True)]
    total: Any = tirx.const(0, dtype)
    for corner in itertools.product((0, 1), repeat=2):
        weight: Any = tirx.const(1, dtype)
        inside, near = [], []
        for low, part, size, far in zip(lows, parts, sizes, corner, strict=True):
            weight = weight * (part if far else tirx.const(1, dtype) - part)
            # Clipped as floats: what is far off has no integer.
            bound = _last(size, dtype)
            at = low + tirx.const(far, dtype)
            inside += [at >= tirx.const(0, dtype), at <= bound]
            near.append(tirx.max(tirx.min(at, bound), tirx.const(0, dtype)).astype("int64"))
        value = x(*front, *near) * weight
        total = total + tirx.Select(tirx.all(*inside), value, tirx.const(0, dtype))
    return total


def _last(size: Any, dtype: str) -> Expr:
    wide = tirx.const(size, "int64") if isinstance(size, int) else size
    return (wide - 1).astype(dtype)


@converts("RoiAlign", since=10)
def roi_align(node: Node) -> Result:
    """``X, boxes [R, 4], batch indices [R] -> [R, C, oh, ow]``: mean or largest of samples.

    As in ONNX's reference, ``max`` takes the largest of the weighted neighbours of all samples.
    """
    attrs = node.attrs
    default = "output_half_pixel" if node.version < 16 else "half_pixel"
    half = str(attrs.get("coordinate_transformation_mode", default)) == "half_pixel"
    mode = str(attrs.get("mode", "avg"))
    ratio = int(attrs.get("sampling_ratio", 0))
    scale = float(attrs.get("spatial_scale", 1.0))
    target = [int(attrs.get("output_height", 1)), int(attrs.get("output_width", 1))]
    _, c, h, w = ranked(node)
    count = ranked(node, 1)[0]

    def make(x: te.Tensor, rois: te.Tensor, batch: te.Tensor) -> te.Tensor:
        dtype = str(rois.dtype)

        def number(value: float) -> Expr:
            return tirx.const(value, dtype)

        def element(r: Any, ch: Any, *at: Any) -> Expr:
            low, extent, bins, grids = [], [], [], []
            for axis in range(2):
                # Boxes are x1, y1, x2, y2; axis 0 is y.
                start = rois(r, 1 - axis) * number(scale) - number(0.5 if half else 0.0)
                end = rois(r, 3 - axis) * number(scale) - number(0.5 if half else 0.0)
                size = end - start
                if not half:
                    size = tirx.max(size, number(1.0))
                each = size / number(target[axis])
                low.append(start)
                extent.append(size)
                bins.append(each)
                grids.append(
                    tirx.const(ratio, "int32") if ratio > 0 else tirx.ceil(each).astype("int32")
                )
            ks = [te.reduce_axis((0, grids[axis]), f"k{axis}") for axis in range(2)]
            place = [
                low[i]
                + at[i].astype(dtype) * bins[i]
                + (ks[i].var.astype(dtype) + number(0.5)) * bins[i] / grids[i].astype(dtype)
                for i in range(2)
            ]
            values = _roi_corners(x, [batch(r), ch], place, (h, w), dtype)
            if mode == "max":
                best = values[0]
                for value in values[1:]:
                    best = tirx.max(best, value)
                return te.max(best, axis=ks)
            total = values[0] + values[1] + values[2] + values[3]
            samples = tirx.max(grids[0] * grids[1], tirx.const(1, "int32"))
            return te.sum(total / samples.astype(dtype), axis=ks)

        return te.compute([count, c, *target], element, name="roi_align")

    return kernel(node, make, *node.inputs[:3], name="roi_align")


def _roi_corners(
    x: te.Tensor, front: Sequence[Any], place: Sequence[Expr], sizes: Sequence[Any], dtype: str
) -> list[Expr]:
    """The weighted four neighbours of a place; 0 more than one element outside the image."""
    one, zero = tirx.const(1, dtype), tirx.const(0, dtype)
    outside, low, high, part = [], [], [], []
    for p, size in zip(place, sizes, strict=True):
        last = _last(size, dtype)
        outside += [p < -one, p > last + one]
        inside = tirx.min(tirx.max(p, zero), last)
        below = tirx.floor(inside)
        low.append(below.astype("int64"))
        high.append(tirx.min(below + one, last).astype("int64"))
        part.append(inside - below)
    values = []
    for corner in itertools.product((0, 1), repeat=2):
        weight: Any = one
        at = []
        for i, far in enumerate(corner):
            weight = weight * (part[i] if far else one - part[i])
            at.append(high[i] if far else low[i])
        values.append(tirx.Select(tirx.any(*outside), zero, x(*front, *at) * weight))
    return values


def _floordiv(size: Any, by: int) -> Any:
    return size // by if isinstance(size, int) else tirx.floordiv(size, by)
