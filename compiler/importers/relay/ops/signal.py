"""Fourier transforms as products with their matrices, and correlation of two images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, te, tirx

from burnish.compiler.importers.relay.context import (
    Attributes,
    Context,
    Converter,
    Value,
    dtype_of,
    fixed_shape,
    shape_of,
    tensor,
)
from burnish.compiler.importers.relay.graph import RelayError

op = relax.op


def _waves(rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """``[size, rows]``: cosines and sines of ``2 pi row k / size``."""
    angle = 2 * np.pi * np.outer(np.arange(size), rows) / size
    return np.cos(angle), np.sin(angle)


def _dft(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """``re, im: [..., n] -> re, im``, along the last axis."""
    re, im = tensor(args[0]), tensor(args[1])
    size = shape_of(re)[-1]
    if not isinstance(size, int):
        raise RelayError("an open size of the axis to transform: fix it")
    inverse = bool(a.get("inverse", False))
    cos, sin = _waves(np.arange(size), size)
    if inverse:
        cos, sin = cos / size, -sin / size
    # (re + i im) (cos - i sin)
    c, s = ctx.const(cos, dtype_of(re)), ctx.const(sin, dtype_of(re))

    def times(x: relax.Expr, w: relax.Expr) -> relax.Var:
        return ctx.emit(op.matmul(x, w))

    return (
        ctx.emit(op.add(times(re, c), times(im, s))),
        ctx.emit(op.subtract(times(im, c), times(re, s))),
    )


def _stft(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """``[batch, samples], [window] -> [batch, frequencies, frames, 2]``, frames one hop apart."""
    x, window = tensor(args[0]), tensor(args[1])
    size, hop, length = int(a.n_fft), int(a.hop_length), int(a.win_length)
    batch, samples = fixed_shape(x)
    frames = 1 + (samples - size) // hop
    rows = np.arange(size // 2 + 1 if a.get("onesided", True) else size)
    cos, sin = _waves(rows, length)
    scale = 1 / np.sqrt(size) if a.get("normalized", False) else 1.0
    places = hop * np.arange(frames)[:, None] + np.arange(length)
    taken = ctx.emit(op.take(x, ctx.const(places.ravel(), "int64"), axis=1, mode="clip"))
    taken = ctx.emit(op.reshape(taken, (batch, frames, length)))
    weight = ctx.emit(op.strided_slice(window, [0], [0], [length]))
    taken = ctx.emit(op.multiply(taken, ctx.emit(op.astype(weight, dtype_of(x)))))
    parts = [
        ctx.emit(op.matmul(taken, ctx.const(scale * wave, dtype_of(x)))) for wave in (cos, -sin)
    ]
    return op.permute_dims(ctx.emit(op.stack(parts, 3)), [0, 2, 1, 3])


def _correlation(ctx: Context, args: Sequence[Value], a: Attributes) -> Value:
    """``[N, C, H, W], [N, C, H, W] -> [N, D * D, h, w]``: patches of the first image with those of
    the second, displaced by ``D`` places each way (FlowNet's layer)."""
    if a.get("layout", "NCHW") != "NCHW":
        raise RelayError(f"layout={a.layout}: NCHW is supported")
    kernel, most = int(a.kernel_size), int(a.max_displacement)
    stride, apart = int(a.stride1), int(a.stride2)
    pads = list(a.ints("padding"))
    top, left, bottom, right = {1: pads * 4, 2: pads * 2}.get(len(pads), pads)
    first, second = tensor(args[0]), tensor(args[1])
    n, channels, height, width = fixed_shape(first)
    border = most + (kernel - 1) // 2
    rows = -(-(height + top + bottom - 2 * border) // stride)
    columns = -(-(width + left + right - 2 * border) // stride)
    radius = most // apart
    side = 2 * radius + 1
    dtype = dtype_of(first)
    times = bool(a.get("is_multiply", True))

    def make(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        def at(image: te.Tensor, b: Any, c: Any, i: Any, j: Any) -> Any:
            inside = tirx.all(i >= top, i < height + top, j >= left, j < width + left)
            read = image[b, c, i - top, j - left]
            return tirx.if_then_else(inside, read, tirx.const(0, dtype))

        over = [te.reduce_axis((0, extent)) for extent in (channels, kernel, kernel)]
        count = kernel * kernel * channels

        def element(b: Any, q: Any, i: Any, j: Any) -> Any:
            c, u, v = over
            down, across = i * stride + most + u, j * stride + most + v
            p = at(x, b, c, down, across)
            moved = ((q // side - radius) * apart, (q % side - radius) * apart)
            r = at(y, b, c, down + moved[0], across + moved[1])
            return te.sum(p * r if times else te.abs(p - r), axis=over)

        total = te.compute((n, side * side, rows, columns), element, name="correlation")
        return te.compute(total.shape, lambda *i: total(*i) / tirx.const(count, dtype))

    return ctx.te(make, first, second, name="correlation")


CONVERTERS: dict[str, Converter] = {
    "dft": _dft,
    "nn.correlation": _correlation,
    "stft": _stft,
}
