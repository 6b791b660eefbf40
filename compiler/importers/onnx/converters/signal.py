"""Fourier transforms as products with constant tables; frames and mel filters."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.compiler.importers.onnx.emit import astype, const, fixed, kernel, op, ranked, setting
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.onnx.values import numpy_dtype

LARGEST = 4096
_REASON = (
    "transforms longer than {limit} are products with tables here, and too large: use a shorter "
    "dft_length"
)


@converts("DFT", since=17)
def dft(node: Node) -> Result:
    """``[..., N, ..., 1 or 2] -> [..., K, ..., 2]`` along one axis, real and imaginary parts last.

    Inverse and one-sided, from half the spectrum to ``[..., N, ..., 1]``.
    """
    attrs, shape, rank = node.attrs, ranked(node), node.ndim()
    inverse, onesided = bool(attrs.get("inverse", 0)), bool(attrs.get("onesided", 0))
    axis = int(attrs.get("axis", 1)) if node.version < 20 else -2
    if node.version >= 20 and node.input(2) is not None:
        axis = int(setting(node, 2, "axis").item())
    axis %= rank
    (given,) = fixed(node, [shape[axis]], "the length of the transformed axis")
    length = 2 * (given - 1) if inverse and onesided else given
    if node.input(1) is not None:
        length = int(setting(node, 1, "dft_length").item())
    parts = _parts(node, node.inputs[0])
    moved = [_last(node, part, axis) for part in parts]
    if inverse and onesided:
        if len(moved) == 1:
            moved.append(node.emit(op.zeros_like(moved[0])))
        made = [_real_inverse(node, moved, given, length)]
    else:
        made = _transform(node, moved, given, length, inverse=inverse, half=onesided)
    back = [_from_last(node, part, axis) for part in made]
    return op.stack(back, -1)


@converts("STFT", since=17)
def stft(node: Node) -> Result:
    """``signal [B, L, 1 or 2], step, window [W], length -> [B, frames, K, 2]``."""
    shape = ranked(node)
    step = int(setting(node, 1, "frame_step").item())
    window = node.input(2)
    if node.input(3) is not None:
        length = int(setting(node, 3, "frame_length").item())
    elif window is not None:
        (length,) = fixed(node, ranked(node, 2), "the length of the window")
    else:
        raise Refused("neither window nor frame_length is given")
    half = bool(node.attrs.get("onesided", 1))
    parts = _parts(node, node.inputs[0])
    if len(parts) == 2 and half:
        raise Refused("onesided=1 of a complex signal")
    size = shape[1]
    frames = (
        (size - length) // step + 1 if isinstance(size, int)
        else tirx.floordiv(size - length, step) + 1
    )  # fmt: skip

    def cut(x: te.Tensor, *w: te.Tensor) -> te.Tensor:
        def element(b: Any, f: Any, n: Any) -> Expr:
            value = x(b, f * step + n)
            return value * w[0](n) if w else value

        return te.compute((x.shape[0], frames, length), element, name="frames")

    more = [] if window is None else [window]
    cuts = [kernel(node, cut, part, *more, name="frames") for part in parts]
    made = _transform(node, cuts, length, length, inverse=False, half=half)
    return op.stack(made, -1)


@converts("MelWeightMatrix", since=17)
def mel_weight_matrix(node: Node) -> Result:
    """``[dft_length // 2 + 1, mel bins]``; all its inputs are settings."""
    names = ("num_mel_bins", "dft_length", "sample_rate", "lower edge", "upper edge")
    bins, length, rate, low, high = (setting(node, i, n).item() for i, n in enumerate(names))
    spectrum = length // 2 + 1
    mels = [2595 * np.log10(1 + edge / 700) for edge in (low, high)]
    step = (mels[1] - mels[0]) / (bins + 2)
    points = np.arange(bins + 2) * step + mels[0]
    hertz = 700 * (10 ** (points / 2595) - 1)
    place = (((length + 1) * hertz) // rate).astype(np.int64)
    made = np.zeros((spectrum, bins))
    for i in range(bins):
        first, middle, last = place[i : i + 3]
        if middle == first:
            made[middle, i] = 1
        else:
            rise = np.arange(first, middle + 1)
            made[first : middle + 1, i] = (rise - first) / (middle - first)
        if last > middle:
            fall = np.arange(middle, last)
            made[middle:last, i] = (last - fall) / (last - middle)
    return const(made, numpy_dtype(int(node.attrs.get("output_datatype", 1))))


def _parts(node: Node, x: relax.Expr) -> list[relax.Expr]:
    """The real part, and the imaginary one if there is one, without the last axis."""
    (count,) = fixed(node, ranked(node)[-1:], "the last axis (1 for real, 2 for complex)")
    if count not in (1, 2):
        raise Refused(f"a last axis of {count}: it is 1 for real and 2 for complex numbers")
    if count == 1:
        return [node.emit(op.squeeze(x, [-1]))]
    return [
        node.emit(op.take(x, const(i, "int64"), axis=node.ndim() - 1, mode="fast"))
        for i in range(2)
    ]


def _last(node: Node, x: relax.Expr, axis: int) -> relax.Expr:
    rank = int(x.ty.ndim)
    if axis == rank - 1:
        return x
    order = [i for i in range(rank) if i != axis] + [axis]
    return node.emit(op.permute_dims(x, order))


def _from_last(node: Node, x: relax.Expr, axis: int) -> relax.Expr:
    rank = int(x.ty.ndim)
    if axis == rank - 1:
        return x
    order = list(range(rank - 1))
    order.insert(axis, rank - 1)
    return node.emit(op.permute_dims(x, order))


def _tables(rows: int, columns: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """``cos`` and ``sin`` of ``2 pi n k / length``, ``[rows, columns]``, in float64."""
    if max(rows, columns) > LARGEST:
        raise Refused(_REASON.format(limit=LARGEST))
    turns = np.outer(np.arange(rows), np.arange(columns)) % length
    angle = 2 * np.pi * turns / length
    # Quarter turns are exact, so that what must vanish does.
    exact = (4 * turns) % length == 0
    cosine = np.where(exact, np.rint(np.cos(angle)), np.cos(angle))
    sine = np.where(exact, np.rint(np.sin(angle)), np.sin(angle))
    return cosine, sine


def _product(node: Node, x: relax.Expr, table: np.ndarray) -> relax.Var:
    """``x`` times a table, summed in float64: what cancels must do so to the last bit."""
    dtype = str(x.ty.dtype)
    made = node.emit(op.matmul(astype(x, "float64"), const(table, "float64")))
    return node.emit(astype(made, dtype))


def _shortened(node: Node, x: relax.Expr, given: int, kept: int) -> relax.Expr:
    """The first ``kept`` elements of the last axis; what is missing counts as 0."""
    if kept >= given:
        return x
    return node.emit(op.strided_slice(x, [int(x.ty.ndim) - 1], [0], [kept]))


def _transform(
    node: Node, parts: list[relax.Expr], given: int, length: int, *, inverse: bool, half: bool
) -> list[relax.Expr]:
    """The transform of the last axis as real and imaginary parts."""
    kept = min(given, length)
    parts = [_shortened(node, part, given, kept) for part in parts]
    columns = length // 2 + 1 if half else length
    cosine, sine = _tables(kept, columns, length)
    if inverse:
        cosine, sine = cosine / length, -sine / length
    real = _product(node, parts[0], cosine)
    imaginary = _product(node, parts[0], -sine)
    if len(parts) == 2:
        real = node.emit(op.add(real, _product(node, parts[1], sine)))
        imaginary = node.emit(op.add(imaginary, _product(node, parts[1], cosine)))
    return [real, imaginary]


def _real_inverse(node: Node, parts: list[relax.Expr], given: int, length: int) -> relax.Expr:
    """Real numbers from the first half of their spectrum; the other half mirrors it."""
    bins = length // 2 + 1
    kept = min(given, bins)
    parts = [_shortened(node, part, given, kept) for part in parts]
    cosine, sine = _tables(kept, length, length)
    weight = np.full((kept, 1), 2.0 / length)
    weight[0] = 1.0 / length
    if length % 2 == 0 and kept == bins:
        weight[-1] = 1.0 / length
    real = _product(node, parts[0], cosine * weight)
    return node.emit(op.subtract(real, _product(node, parts[1], sine * weight)))
