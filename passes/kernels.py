"""Tensor expressions of the operators that read packed weights.

Each maker returns a function from tensors to a tensor, for ``BlockBuilder.call_te``. The sum is
kept as ``[rows..., N / NB, NB]`` and read back as ``[rows..., N]`` by a second stage, into which
everything that follows is fused; the schedule rules know the pair by the block attribute
``burnish.packed``. Sums and results are float32, whatever is multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import te, tirx
from tvm.ir import Expr

from burnish.passes.packed import PackedWeight, as_float32

PACKED = "burnish.packed"
"""Block attribute: the width ``NB`` of the weight's blocks."""
DEPTH = "burnish.depth"
"""Block attribute where codes share a storage element: length along ``K``, filling apart."""
USEFUL = "burnish.useful"
"""Block attribute: the share of a contraction's products that its definition has, as ``1/4``."""
Make = Callable[..., te.Tensor]


@dataclass(frozen=True)
class Window:
    """Geometry of a two-dimensional convolution over NHWC data; padding is (t, l, b, r)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, attrs: Any, kernel: tuple[int, int]) -> Window:
        """From the attributes of ``relax.nn.conv2d``."""

        def two(values: Any) -> tuple[int, int]:
            a, b = (int(v) for v in values)
            return a, b

        top, left, bottom, right = (int(v) for v in attrs.padding)
        return cls(kernel, two(attrs.strides), (top, left, bottom, right), two(attrs.dilation))

    def is_plain_3x3(self) -> bool:
        """Whether the window is 3x3, and neither strided nor dilated."""
        return (self.kernel, self.strides, self.dilation) == ((3, 3), (1, 1), (1, 1))

    def output(self, data: te.Tensor) -> list[Any]:
        """``[N, H, W, C] -> [OH, OW]``."""
        sizes = []
        for axis in range(2):
            extent = data.shape[1 + axis] + self.padding[axis] + self.padding[axis + 2]
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            stride = self.strides[axis]
            size = extent - reach + stride
            sizes.append(tirx.floordiv(size, stride) if stride != 1 else size)
        return sizes

    def padded(self, data: te.Tensor) -> te.Tensor:
        """``data`` with its border of zeros; ``data`` itself where there is none."""
        if not any(self.padding):
            return data
        top, left, bottom, right = self.padding
        n, h, w, c = data.shape

        def element(b: Any, y: Any, x: Any, z: Any) -> Expr:
            inside = tirx.all(y >= top, y < h + top, x >= left, x < w + left)
            zero = tirx.const(0, data.dtype)
            return tirx.if_then_else(inside, data(b, y - top, x - left, z), zero)

        return te.compute((n, h + top + bottom, w + left + right, c), element, name="pad")

    def at(self, place: Sequence[Any], step: Sequence[Any]) -> list[Any]:
        """Where output ``(y, x)`` reads at kernel step ``(kh, kw)``."""
        return [
            position * stride + k * dilation
            for position, stride, k, dilation in zip(
                place, self.strides, step, self.dilation, strict=True
            )
        ]


def _contract(
    rows: Sequence[Any],
    weight: PackedWeight,
    tensors: Sequence[te.Tensor],
    outer: Sequence[int],
    read: Callable[[Sequence[Any], Sequence[Any], Any, Any], Expr],
) -> te.Tensor:
    """Sum over ``outer`` and depth of ``read(rows, outer at, depth at, block) * weight``."""
    width, per, depth = weight.width, weight.per, weight.depth
    blocks = -(-weight.channels // width)
    axes = [te.reduce_axis((0, n), f"k{i}") for i, n in enumerate(outer)]
    element = te.reduce_axis((0, -(-depth // per)), "k")
    code = [te.reduce_axis((0, per), "unroll_code")] if per > 1 else []

    def term(*at: Any) -> Expr:
        *place, block, lane = at
        k: Any = element
        if per > 1:
            k = element * per + code[0]
            if depth % per:
                k = tirx.min(k, depth - 1)
        value = weight.value(tensors, block, axes, element, code[0] if code else 0, lane)
        x = as_float32(read(place, axes, k, block))
        return te.sum(x * value, axis=[*axes, element, *code])

    attrs = {
        PACKED: width,
        **({DEPTH: depth} if per > 1 else {}),
        **({USEFUL: str(weight.useful)} if weight.useful != 1 else {}),
    }
    total = te.compute((*rows, blocks, width), term, name="contract", attrs=attrs)

    def unpack(*at: Any) -> Expr:
        *place, n = at
        value = total(*place, tirx.floordiv(n, width), tirx.floormod(n, width))
        return value if weight.scale is None else value * weight.scale(tensors, n)

    return te.compute((*rows, weight.channels), unpack, name="unpack")


def gemm(weight: PackedWeight) -> Make:
    """``x [..., K], packed weight -> [..., N]``."""

    def make(x: te.Tensor, *tensors: te.Tensor) -> te.Tensor:
        return _contract(x.shape[:-1], weight, tensors, [], lambda rows, _o, k, _b: x(*rows, k))

    return make


def conv2d(weight: PackedWeight, window: Window, groups: int) -> Make:
    """``x [N, H, W, C], packed weight -> [N, OH, OW, O]``; ``NB`` divides a group's channels."""
    per_group = weight.channels // groups // weight.width

    def make(x: te.Tensor, *tensors: te.Tensor) -> te.Tensor:
        source = window.padded(x)

        def read(rows: Sequence[Any], at: Sequence[Any], k: Any, block: Any) -> Expr:
            n, y, z = rows
            channel = k if groups == 1 else tirx.floordiv(block, per_group) * weight.depth + k
            return source(n, *window.at((y, z), at), channel)

        return _contract([x.shape[0], *window.output(x)], weight, tensors, window.kernel, read)

    return make


def depthwise(weight: PackedWeight, window: Window) -> Make:
    """``x [N, H, W, C], weight of taps [KH * KW, C] -> [N, OH, OW, C]``."""

    def make(x: te.Tensor, *tensors: te.Tensor) -> te.Tensor:
        source = window.padded(x)
        h = te.reduce_axis((0, window.kernel[0]), "kh")
        w = te.reduce_axis((0, window.kernel[1]), "kw")

        def term(n: Any, y: Any, z: Any, c: Any) -> Expr:
            tap = h * window.kernel[1] + w
            value = source(n, *window.at((y, z), (h, w)), c) * weight.value(tensors, tap, c)
            return te.sum(value, axis=[h, w])

        return te.compute((x.shape[0], *window.output(x), x.shape[3]), term, name="depthwise")

    return make


def take(weight: PackedWeight) -> Make:
    """``indices [...], packed weight [N, K] -> [..., K]``; negative indices count from the end."""
    rows, width, per = weight.channels, weight.width, weight.per

    def make(indices: te.Tensor, *tensors: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Expr:
            *where, k = at
            index = indices(*where).astype("int64")
            row = tirx.Select(index < 0, index + rows, index)
            row = tirx.min(tirx.max(row, tirx.const(0, "int64")), tirx.const(rows - 1, "int64"))
            block, lane = tirx.floordiv(row, width), tirx.floormod(row, width)
            value = weight.value(
                tensors, block, [], tirx.floordiv(k, per), tirx.floormod(k, per), lane
            )
            return value if weight.scale is None else value * weight.scale(tensors, row)

        return te.compute((*indices.shape, weight.depth), element, name="take")

    return make
