"""Transposed convolution as a plain one: its phases side by side as channels, then interleaved.

With stride s, output f = s * t + phase reads inputs t, t - 1, ... with every s-th tap of the
kernel, starting at ``phase``. The s * s phases are convolutions of stride 1 over the same data,
so they are one convolution with s * s times the channels; its result is stored where each phase
belongs, which is a copy of runs of channels. No tap meets one of the zeros that a transposed
convolution is often described with; taps are added only where s does not divide the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from tvm import te, tirx
from tvm.ir import Expr

from burnish.passes.kernels import Make, Window, conv2d
from burnish.passes.packed import PackedWeight


@dataclass(frozen=True)
class _Axis:
    """One axis: taps as if not dilated, stride, padding on both sides, extra output."""

    taps: int
    stride: int
    before: int
    after: int
    extra: int

    @property
    def reach(self) -> int:
        """Taps of one phase."""
        return -(-self.taps // self.stride)

    @property
    def first(self) -> int:
        """``t`` of the first output."""
        return self.before // self.stride

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros that the plain convolution wants before and after; negative where it would skip."""
        after = (self.taps + self.extra - self.after - 1) // self.stride
        return self.reach - 1 - self.first, after

    def output(self, size: Any) -> Any:
        """Extent of the output, from that of the input."""
        return (size - 1) * self.stride + (self.taps + self.extra - self.before - self.after)

    def place(self, at: Expr) -> tuple[Expr, Expr]:
        """``output -> (row of the plain convolution, phase)``."""
        position = at + self.before if self.before else at
        if self.stride == 1:
            return position - self.first if self.first else position, tirx.const(0, "int64")
        row = tirx.floordiv(position, self.stride)
        return row - self.first if self.first else row, tirx.floormod(position, self.stride)


@dataclass(frozen=True)
class Transposed:
    """Geometry of ``relax.nn.conv2d_transpose``."""

    vertical: _Axis
    horizontal: _Axis
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, attrs: Any, kernel: tuple[int, int]) -> Transposed | None:
        """From the operator's attributes; ``None`` if its padding cuts whole inputs off."""
        strides, dilation = [int(s) for s in attrs.strides], [int(d) for d in attrs.dilation]
        padding, extra = [int(p) for p in attrs.padding], [int(e) for e in attrs.output_padding]
        vertical, horizontal = (
            _Axis(
                dilation[axis] * (kernel[axis] - 1) + 1,
                strides[axis],
                padding[axis],
                padding[axis + 2],
                extra[axis],
            )
            for axis in range(2)
        )
        if min(*vertical.padding, *horizontal.padding) < 0:
            return None
        return cls(vertical, horizontal, (dilation[0], dilation[1]), int(attrs.groups))

    @property
    def window(self) -> Window:
        """Of the plain convolution."""
        (top, bottom), (left, right) = self.vertical.padding, self.horizontal.padding
        kernel = (self.vertical.reach, self.horizontal.reach)
        return Window(kernel, (1, 1), (top, left, bottom, right), (1, 1))

    @property
    def phases(self) -> int:
        return self.vertical.stride * self.horizontal.stride

    def useful(self, kernel: tuple[int, int]) -> Fraction:
        """The share of the phases' taps that are the kernel's own, not zeros between or after."""
        v, h = self.vertical, self.horizontal
        return Fraction(kernel[0] * kernel[1], v.reach * v.stride * h.reach * h.stride)

    def by_phase(self, weight: np.ndarray) -> np.ndarray:
        """``[I, O / G, KH, KW] -> [G * phases * O / G, JH, JW, I / G]``, taps in reverse."""
        inputs, outputs = weight.shape[:2]
        v, h = self.vertical, self.horizontal
        full = np.zeros(
            (inputs, outputs, v.reach * v.stride, h.reach * h.stride), dtype=weight.dtype
        )
        full[:, :, : v.taps : self.dilation[0], : h.taps : self.dilation[1]] = weight
        full = full.reshape(
            self.groups,
            inputs // self.groups,
            outputs,
            v.reach,
            v.stride,
            h.reach,
            h.stride,
        )
        full = full[:, :, :, ::-1, :, ::-1]
        return np.ascontiguousarray(full.transpose(0, 4, 6, 2, 3, 5, 1)).reshape(
            -1, v.reach, h.reach, inputs // self.groups
        )


def conv2d_transpose(weight: PackedWeight, shape: Transposed, groups: int) -> Make:
    """``x [N, H, W, C], packed phases -> [N, OH, OW, O]``; the weight is packed in ``groups``."""
    plain = conv2d(weight, shape.window, groups)
    v, h = shape.vertical, shape.horizontal
    channels = weight.channels // shape.phases
    each = channels // shape.groups

    def make(x: te.Tensor, *tensors: te.Tensor) -> te.Tensor:
        phases = plain(x, *tensors)
        if shape.phases == 1:
            return phases

        def element(n: Any, y: Any, z: Any, c: Any) -> Expr:
            (row, down), (column, right) = v.place(y), h.place(z)
            phase = down * h.stride + right
            group, inner = tirx.floordiv(c, each), tirx.floormod(c, each)
            channel = (group * shape.phases + phase) * each + inner
            return phases(n, row, column, phase * each + c if shape.groups == 1 else channel)

        size = (v.output(x.shape[1]), h.output(x.shape[2]))
        return te.compute((x.shape[0], *size, channels), element, name="interleave")

    return make
