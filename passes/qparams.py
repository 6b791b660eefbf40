"""Round-to-nearest affine quantization of weights as numbers. NumPy only.

Code convention, everywhere: ``value = (code - zero_point) * scale`` with integer ``code``.

- Symmetric, 2 to 7 bits: codes are unsigned with the fixed zero point ``2**(bits-1)``, and
  ``code - zero_point`` stays within ``-q .. q``, ``q = 2**(bits-1) - 1``.
- Symmetric, 8 bits: codes are ``int8`` from -127 to 127, zero point 0.
- Asymmetric: codes are unsigned from 0 to ``2**bits - 1``; the zero point is one of them,
  stored per scale as ``uint8``. The range always contains 0, so a zero weight stays zero.

Granularity: a scale covers a block, and ``scale`` has the rank of the weight, so that entry
``i`` of an axis uses entry ``i // (weight.shape[axis] // scale.shape[axis])``:

    [O, I], tensor -> scale [1, 1];  channel -> [O, 1];  group of g -> [O, I/g]
    [O, I, H, W], channel -> [O, 1, 1, 1];  group of g -> [O, I/g, 1, 1]

Error bound: ``|w - dequantize(w)| <= scale / 2`` for every weight, to within the rounding of the
scale to its type (``2**bits`` units in its last place).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

WORD_BITS = 32


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight as codes: ``value = (codes - zero_point) * scale``.

    ``codes`` has the weight's own shape (``int8`` for symmetric 8 bits, else ``uint8``);
    ``scale`` and ``zero_point`` have its rank (see the module's granularity table), the latter
    as ``uint8`` and also there, constant, for symmetric codes. ``dtype`` is the weight's.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    bits: int
    symmetric: bool
    dtype: str = "float32"
    name: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.codes.shape)

    @property
    def block(self) -> tuple[int, ...]:
        """Along each axis, how many weights share a scale."""
        return tuple(
            n // max(1, s) for n, s in zip(self.codes.shape, self.scale.shape, strict=True)
        )

    def centred(self) -> np.ndarray:
        """``code - zero_point``: ``int8`` where symmetric, else ``int16``; shape of the weight."""
        centred = self.codes.astype(np.int16) - self.per_weight(self.zero_point).astype(np.int16)
        return centred.astype(np.int8) if self.symmetric else centred

    def per_weight(self, values: np.ndarray) -> np.ndarray:
        """Values given per scale, repeated to the shape of the weight."""
        for axis, times in enumerate(self.block):
            values = np.repeat(values, times, axis=axis) if times != 1 else values
        return values

    def dequantize(self) -> np.ndarray:
        """The reference, in float64."""
        return self.centred().astype(np.float64) * self.per_weight(self.scale.astype(np.float64))


def scale_shape(
    shape: tuple[int, ...],
    reduction_axes: tuple[int, ...],
    granularity: str,
    group_axis: int | None = None,
    group_size: int | None = None,
) -> tuple[int, ...]:
    """Shape of the scales. Raises ``ValueError`` where the group does not divide its axis."""
    if granularity == "tensor":
        return (1,) * len(shape)
    sizes = [1 if axis in reduction_axes else n for axis, n in enumerate(shape)]
    if granularity == "group":
        if group_axis is None or group_size is None:
            raise ValueError("granularity 'group' needs a group axis and a group size")
        if shape[group_axis] % group_size:
            raise ValueError(group_problem(shape, group_axis, group_size))
        sizes[group_axis] = shape[group_axis] // group_size
    return tuple(sizes)


def group_problem(shape: tuple[int, ...], axis: int, group_size: int) -> str:
    """What to say where a group size does not divide the axis it runs along."""
    length = shape[axis]
    fitting = [n for n in range(1, length + 1) if length % n == 0]
    nearest = sorted(sorted(fitting, key=lambda n: abs(n - group_size))[:6])
    return (
        f"group_size {group_size} does not divide axis {axis} of {list(shape)}, of length "
        f"{length}; sizes that do: {', '.join(map(str, nearest))}"
    )


def quantize(
    weight: np.ndarray,
    bits: int,
    *,
    symmetric: bool,
    scales: tuple[int, ...],
    name: str = "weight",
) -> QuantizedWeight:
    """Round to nearest (ties to even) with ``scales`` scales along each axis.

    Scales are float32 (float64 for float64 weights) and never smaller than the least normal
    number of their type, so a block of denormal weights still meets the error bound; a block
    of zeros has scale 1. Raises ``ValueError`` naming a weight with infinities or NaN.
    """
    check_bits(bits)
    exact = weight.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ValueError(
            f"weight {name!r} {list(weight.shape)} holds infinities or NaN: cannot quantize it"
        )
    scale_dtype = np.float64 if weight.dtype == np.float64 else np.float32
    blocks, inner = _blocks(exact, scales)
    low, high = (f(blocks, axis=inner, initial=0.0) for f in (np.min, np.max))
    levels = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    # Divided before the difference is taken, since high - low may overflow.
    ideal = np.maximum(-low, high) / levels if symmetric else high / levels - low / levels
    scale = np.maximum(ideal, np.finfo(scale_dtype).tiny).astype(scale_dtype)
    scale[ideal == 0] = 1
    step = scale.astype(np.float64)
    # In place from here: a float64 copy of a large embedding is the peak of memory.
    codes = np.divide(blocks, np.expand_dims(step, inner), out=blocks)
    np.rint(codes, out=codes)
    if symmetric:
        zero = np.full(scale.shape, symmetric_zero_point(bits), np.uint8)
        np.clip(codes, -levels, levels, out=codes)
        codes += symmetric_zero_point(bits)
    else:
        zero = np.clip(np.rint(-low / step), 0, levels).astype(np.uint8)
        codes += np.expand_dims(zero, inner)
        np.clip(codes, 0, levels, out=codes)
    stored = codes.astype(code_dtype(bits, symmetric)).reshape(weight.shape)
    return QuantizedWeight(stored, scale, zero, bits, symmetric, str(weight.dtype), name)


def symmetric_zero_point(bits: int) -> int:
    """The fixed zero point of symmetric codes."""
    return 0 if bits == 8 else 2 ** (bits - 1)


def code_dtype(bits: int, symmetric: bool) -> np.dtype:
    """The type of unpacked codes."""
    return np.dtype(np.int8 if bits == 8 and symmetric else np.uint8)


def check_bits(bits: int) -> None:
    """Raise ``ValueError`` for a width outside 2 to 8."""
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be a whole number from 2 to 8, got {bits!r}")


def codes_per_word(bits: int) -> int:
    """How many codes a 32-bit word holds: 16, 10, 8, 6, 5, 4, 4 for 2 to 8 bits."""
    check_bits(bits)
    return WORD_BITS // bits


def pack_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned codes ``[..., n]`` -> words ``[..., ceil(n / codes_per_word)]``, ``uint32``.

    Code ``i`` of a word is its bits ``i * bits`` up; bits left over are zero. Raises
    ``ValueError`` for a code that needs more bits.
    """
    per = codes_per_word(bits)
    if codes.size and (codes.min() < 0 or int(codes.max()) >> bits):
        raise ValueError(
            f"codes from {codes.min()} to {codes.max()} do not fit in {bits} unsigned bits"
        )
    count = codes.shape[-1]
    words = math.ceil(count / per)
    pad = [(0, 0)] * (codes.ndim - 1) + [(0, words * per - count)]
    lanes = np.pad(codes, pad).reshape(*codes.shape[:-1], words, per)
    packed = np.zeros(lanes.shape[:-1], np.uint32)
    for i in range(per):
        packed |= lanes[..., i].astype(np.uint32) << np.uint32(i * bits)
    return packed


def unpack_bits(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Words ``[..., w]`` -> the first ``count`` codes of each row, ``[..., count]``, ``uint8``."""
    per = codes_per_word(bits)
    if words.shape[-1] != math.ceil(count / per):
        raise ValueError(
            f"{count} codes of {bits} bits take {math.ceil(count / per)} words a row, "
            f"got {list(words.shape)}"
        )
    mask = np.uint32(2**bits - 1)
    lanes = [((words >> np.uint32(i * bits)) & mask).astype(np.uint8) for i in range(per)]
    unpacked = np.stack(lanes, axis=-1)
    return unpacked.reshape(*words.shape[:-1], words.shape[-1] * per)[..., :count]


def to_rows(codes: np.ndarray, reduction_axes: tuple[int, ...]) -> np.ndarray:
    """Codes of the weight's shape -> ``[rows, columns]``: kept axes first, reduced axes last."""
    kept = [axis for axis in range(codes.ndim) if axis not in reduction_axes]
    rows = math.prod(codes.shape[axis] for axis in kept)
    return codes.transpose(*kept, *sorted(reduction_axes)).reshape(rows, -1)


def from_rows(
    rows: np.ndarray, shape: tuple[int, ...], reduction_axes: tuple[int, ...]
) -> np.ndarray:
    """The inverse of :func:`to_rows`."""
    order = [axis for axis in range(len(shape)) if axis not in reduction_axes]
    order += sorted(reduction_axes)
    moved = rows.reshape([shape[axis] for axis in order])
    return np.ascontiguousarray(moved.transpose(np.argsort(order)))


def _blocks(weight: np.ndarray, scales: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """The weight as ``[s0, n0/s0, s1, n1/s1, ...]``, and the axes that share a scale."""
    split: list[int] = []
    for axis, (n, s) in enumerate(zip(weight.shape, scales, strict=True)):
        if s < 1 or n % s:
            raise ValueError(f"{s} scales do not divide axis {axis} of {list(weight.shape)}")
        split += [s, n // s]
    return weight.reshape(split), tuple(range(1, 2 * weight.ndim, 2))
