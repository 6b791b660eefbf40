"""Weights in the layout a register-tiled kernel reads: numbers and their expressions.

A weight seen as ``[N, *outer, K]`` (output channels, kernel window, input channels) is stored as

    float32            [ceil(N / NB), *outer, K, NB]
    float16, bfloat16  the same, converted in registers; for dot instructions in pairs along K
                       (:mod:`burnish.passes.half`)
    8-bit codes        the same, one byte an element
    narrower codes     [ceil(N / NB), *outer, ceil(K / per), NB] words of ``per = 32 // bits``
                       codes along K, the first in the lowest bits

with zeros (codes equal to the zero point) where ``N`` or ``K`` is filled up, so that a kernel
streams it once, in order, a whole vector at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from tvm import te, tirx
from tvm.ir import Expr

from burnish.passes.qparams import QuantizedWeight, codes_per_word, pack_bits, symmetric_zero_point


@dataclass(frozen=True)
class PackedWeight:
    """Arrays of a packed weight, and how to read them.

    ``arrays`` is by name suffix: ``""``, ``".scale"``, ``".zero_point"``.

    ``per`` codes share a storage element along ``K``. ``value(tensors, block, outer, element,
    code, lane)`` is the weight at code ``code`` of element ``element``; ``scale(tensors, n)``,
    if any, multiplies the finished sum of channel ``n``. ``useful`` is the share of products that
    are not with a zero which only the form of the weight put there.
    """

    arrays: dict[str, np.ndarray]
    width: int
    channels: int
    depth: int
    per: int
    value: Callable[..., Expr]
    scale: Callable[..., Expr] | None = None
    useful: Fraction = Fraction(1)


MOST_MERGED = 16
"""Groups that may share a block: each computes as many products with zeros as it has partners."""


def groups_a_block(channels: int, groups: int, lanes: int) -> int:
    """How many groups it takes to fill whole vectors of output channels."""
    each = channels // groups
    return next(
        (m for m in range(1, groups + 1) if groups % m == 0 and each * m % lanes == 0), groups
    )


def merged_groups(weight: np.ndarray, groups: int, lanes: int) -> tuple[np.ndarray, int] | None:
    """[O, H, W, I / groups] -> the same convolution in fewer groups, each whole vectors wide.

    Groups that share a vector of output channels become one, with zeros where a channel does not
    read another group's input. ``None`` if that takes more than ``MOST_MERGED`` of them.
    """
    channels, *window, depth = weight.shape
    each = channels // groups
    count = groups_a_block(channels, groups, lanes)
    if count > MOST_MERGED:
        return None
    merged = np.zeros((groups // count, count, each, *window, count, depth), weight.dtype)
    own = np.arange(count)
    # Advanced indices apart from one another come first in the result.
    merged[:, own, :, :, :, own] = np.moveaxis(
        weight.reshape(groups // count, count, each, *window, depth), 1, 0
    )
    return merged.reshape(channels, *window, count * depth), groups // count


def exact_width(channels: int, lanes: int) -> int | None:
    """The largest ``NB`` of up to four vectors that divides ``channels``."""
    return next((v * lanes for v in (4, 3, 2, 1) if channels % (v * lanes) == 0), None)


def in_blocks(array: np.ndarray, width: int, fill: np.ndarray | float = 0.0) -> np.ndarray:
    """[N, ...] -> [ceil(N / width), ..., width]."""
    channels = array.shape[0]
    blocks = -(-channels // width)
    if blocks * width != channels:
        padded = np.empty((blocks * width, *array.shape[1:]), array.dtype)
        padded[:channels] = array
        padded[channels:] = fill
        array = padded
    array = array.reshape(blocks, width, *array.shape[1:])
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def as_float32(value: Expr) -> Expr:
    return value if str(value.ty.dtype) == "float32" else value.astype("float32")


def pack_dense(weight: np.ndarray, width: int) -> PackedWeight:
    """[N, *outer, K] float -> packed, in its own type; read as float32."""

    def value(
        tensors: Sequence[te.Tensor],
        block: Expr,
        outer: Sequence[Expr],
        element: Expr,
        _code: int | Expr,
        lane: Expr,
    ) -> Expr:
        return as_float32(tensors[0](block, *outer, element, lane))

    return PackedWeight(
        {"": in_blocks(weight, width)}, width, weight.shape[0], weight.shape[-1], 1, value
    )


def pack_quantized(weight: QuantizedWeight, width: int) -> PackedWeight:
    """Codes [N, *outer, K] -> packed, dequantized in registers.

    One scale a channel multiplies the finished sum; scales that change along ``K`` multiply
    each weight.
    """
    channels, *outer_shape, depth = weight.shape
    bits, symmetric = weight.bits, weight.symmetric
    groups = weight.scale.shape[-1]
    group = depth // groups
    per = 1 if bits == 8 else codes_per_word(bits)
    zero = weight.per_weight(weight.zero_point)
    codes = weight.codes
    if per > 1:
        filling = -depth % per
        if filling:
            last = np.repeat(zero[..., -1:], filling, axis=-1).astype(codes.dtype)
            codes = np.concatenate([codes, last], axis=-1)
        words = pack_bits(codes.reshape(-1, codes.shape[-1]), bits)
        codes = words.reshape(channels, *outer_shape, -1)
    arrays = {"": in_blocks(codes, width)}
    per_channel = groups == 1
    scales = np.broadcast_to(
        weight.scale.reshape(weight.scale.shape[0], -1, groups)[:, 0, :], (channels, groups)
    ).astype(np.float32)
    names = [""]
    if per_channel:
        arrays[".scale"] = np.ascontiguousarray(scales[:, 0])
    else:
        arrays[".scale"] = in_blocks(scales, width)
    names.append(".scale")
    if not symmetric:
        zeros = np.broadcast_to(
            weight.zero_point.reshape(weight.zero_point.shape[0], -1, groups)[:, 0, :],
            (channels, groups),
        )
        arrays[".zero_point"] = in_blocks(np.ascontiguousarray(zeros), width)
        names.append(".zero_point")

    def value(
        tensors: Sequence[te.Tensor],
        block: Expr,
        outer: Sequence[Expr],
        element: Expr,
        code: Expr,
        lane: Expr,
    ) -> Expr:
        stored = tensors[0](block, *outer, element, lane)
        position = element
        if per > 1:
            shift = code.astype("uint32") * tirx.const(bits, "uint32")
            mask = tirx.const(2**bits - 1, "uint32")
            stored = ((stored >> shift) & mask).astype("int32")
            position = element * per + code
        if not per_channel and depth % per:
            position = tirx.min(position, depth - 1)
        at_group: Expr | int = 0 if groups == 1 else tirx.floordiv(position, group)
        number = stored.astype("float32")
        if not symmetric:
            number = number - tensors[2](block, at_group, lane).astype("float32")
        elif bits != 8:
            number = number - tirx.const(symmetric_zero_point(bits), "float32")
        return number if per_channel else number * tensors[1](block, at_group, lane)

    def scale(tensors: Sequence[te.Tensor], channel: Expr) -> Expr:
        return tensors[1](channel)

    return PackedWeight(arrays, width, channels, depth, per, value, scale if per_channel else None)


def pack_depthwise(weight: np.ndarray | QuantizedWeight) -> PackedWeight:
    """[C, H, W, 1] -> taps first, ``[H * W, C]``; codes under 8 bits in words along the taps.

    ``value(tensors, tap, channel)`` is one weight; each channel has one scale and zero point.
    """
    if not isinstance(weight, QuantizedWeight):
        channels = weight.shape[0]
        taps = np.ascontiguousarray(weight.reshape(channels, -1).T)

        def tap_value(tensors: Sequence[te.Tensor], tap: Expr, c: Expr) -> Expr:
            return as_float32(tensors[0](tap, c))

        return PackedWeight({"": taps}, 1, channels, taps.shape[0], 1, tap_value)
    channels, bits = weight.shape[0], weight.bits
    codes = weight.codes.reshape(channels, -1)
    depth = codes.shape[1]
    per = 1 if bits == 8 else codes_per_word(bits)
    if per > 1:
        codes = pack_bits(codes, bits)
    arrays = {
        "": np.ascontiguousarray(codes.T),
        ".scale": np.broadcast_to(weight.scale.reshape(-1), (channels,)).astype(np.float32),
    }
    if not weight.symmetric:
        zero = np.broadcast_to(weight.zero_point.reshape(-1), (channels,))
        arrays[".zero_point"] = np.ascontiguousarray(zero)

    def value(tensors: Sequence[te.Tensor], tap: Expr, c: Expr) -> Expr:
        stored = tensors[0](tirx.floordiv(tap, per), c)
        if per > 1:
            shift = tirx.floormod(tap, per).astype("uint32") * tirx.const(bits, "uint32")
            stored = ((stored >> shift) & tirx.const(2**bits - 1, "uint32")).astype("int32")
        number = stored.astype("float32")
        if not weight.symmetric:
            number = number - tensors[2](c).astype("float32")
        elif bits != 8:
            number = number - tirx.const(symmetric_zero_point(bits), "float32")
        return number * tensors[1](c)

    return PackedWeight(arrays, 1, channels, depth, per, value)
