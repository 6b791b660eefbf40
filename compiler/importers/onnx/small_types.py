"""Numbers of 8 bits and less, converted by their bits.

TVM 0.27 moves 8-bit floats rightly and converts them wrongly. Smaller numbers are carried in a
byte (``values.CARRIED``).
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto
from tvm import tirx
from tvm.ir import Expr

INTEGER_RANGE = {
    TensorProto.UINT8: (0, 255),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT2: (0, 3),
    TensorProto.INT2: (-2, 1),
}
"""Smallest and largest value of the types QuantizeLinear gives."""


@dataclass(frozen=True)
class SmallFloat:
    """A float below 16 bits: sign, exponent, ``mantissa`` bits.

    ``lowest`` is the exponent of the smallest normal number, ``most`` the code of the largest
    finite one, ``beyond`` the code of what is larger, ``nan`` the code of NaN (both without
    sign). ``unsigned_zero``: there is no -0, its code is NaN.
    """

    mantissa: int
    lowest: int
    most: int
    beyond: int
    nan: int
    bits: int = 8
    unsigned_zero: bool = False


FLOATS = {
    TensorProto.FLOAT8E4M3FN: SmallFloat(3, -6, 0x7E, 0x7F, 0x7F),
    TensorProto.FLOAT8E5M2: SmallFloat(2, -14, 0x7B, 0x7C, 0x7E),
    TensorProto.FLOAT8E4M3FNUZ: SmallFloat(3, -7, 0x7F, 0x80, 0x80, unsigned_zero=True),
    TensorProto.FLOAT8E5M2FNUZ: SmallFloat(2, -15, 0x7F, 0x80, 0x80, unsigned_zero=True),
    # No infinities, no NaN: both saturate, NaN to -0 as ml_dtypes has it.
    TensorProto.FLOAT4E2M1: SmallFloat(1, 0, 0x7, 0x7, 0x0, bits=4),
}


def encode(x: Expr, kind: SmallFloat, saturate: bool) -> Expr:
    """A float32 or float64 as the code (uint8) of the nearest small float, ties to even.

    With ``saturate``, what is too large, infinity too, becomes the largest finite number.
    """
    width, man, bias = (32, 23, 127) if str(x.ty.dtype) == "float32" else (64, 52, 1023)
    dtype, word = f"float{width}", f"uint{width}"

    def const(value: int) -> Expr:
        return tirx.const(value, word)

    bits = tirx.reinterpret(word, x)
    sign = bits >> const(width - 1)
    plain = bits & const((1 << (width - 1)) - 1)
    shift = man - kind.mantissa
    odd = (plain >> const(shift)) & const(1)
    rounded = (plain + const((1 << (shift - 1)) - 1) + odd) >> const(shift)
    # Exponent fields count from bias in x, from 1 - lowest in the code.
    offset = (bias - 1 + kind.lowest) << kind.mantissa
    normal = rounded - const(offset)
    # Adding a number whose last place is the smallest small float rounds to multiples of it.
    magic = tirx.const(2.0 ** (kind.lowest - kind.mantissa + man), dtype)
    low = tirx.reinterpret(word, tirx.reinterpret(dtype, plain) + magic)
    subnormal = low - tirx.reinterpret(word, magic)
    small = plain < const((bias + kind.lowest) << man)
    code = tirx.Select(small, subnormal, normal)
    limit = kind.most if saturate else kind.beyond
    is_finite = plain < const(((2 << (width - man - 2)) - 1) << man)
    fits = tirx.all(is_finite, tirx.any(small, normal <= const(kind.most)))
    code = tirx.Select(fits, code, const(limit))
    is_nan = plain > const(((1 << (width - man - 1)) - 1) << man)
    if kind.bits == 4:
        code = code | (tirx.Select(is_nan, const(1), sign) << const(3))
        code = tirx.Select(is_nan, const(8), code)
    elif kind.unsigned_zero:
        keep = tirx.all(code != const(0), code != const(0x80))
        code = tirx.Select(keep, code | (sign << const(7)), code)
        code = tirx.Select(is_nan, const(kind.nan), code)
    else:
        code = tirx.Select(is_nan, const(kind.nan), code) | (sign << const(7))
    return code.astype("uint8")


def decode(code: Expr, kind: SmallFloat) -> Expr:
    """The float32 of a code (uint8); exact."""
    man, top = kind.mantissa, kind.bits - 1

    def const(value: int) -> Expr:
        return tirx.const(value, "uint32")

    wide = code.astype("uint32")
    plain = wide & const((1 << top) - 1)
    sign = (wide >> const(top)) << const(31)
    step = tirx.const(2.0 ** (kind.lowest - man), "float32")
    subnormal = tirx.reinterpret("uint32", plain.astype("float32") * step)
    normal = (plain << const(23 - man)) + const((126 + kind.lowest) << 23)
    value = tirx.Select(plain < const(1 << man), subnormal, normal) | sign
    quiet = const(0x7FC00000)
    if kind.unsigned_zero:
        value = tirx.Select(wide == const(kind.nan), quiet, value)
    elif kind.bits == 8:
        value = tirx.Select(plain > const(kind.most), quiet | sign, value)
        if kind.beyond != kind.nan:
            infinity = const(0x7F800000) | sign
            value = tirx.Select(plain == const(kind.beyond), infinity, value)
    return tirx.reinterpret("float32", value)


def encode_power(x: Expr, saturate: bool, mode: str) -> Expr:
    """A float32 as a power of two (E8M0): code ``exponent + 127``, 255 is NaN.

    ``mode`` is ``"up"``, ``"down"`` or ``"nearest"`` (ties up). Signs are dropped, as ONNX has it.
    """

    def const(value: int) -> Expr:
        return tirx.const(value, "uint32")

    plain = tirx.reinterpret("uint32", x) & const(0x7FFFFFFF)
    exponent, rest = plain >> const(23), plain & const(0x7FFFFF)
    # Code 0 is 2**-127, in float32 a subnormal: half of the smallest normal number.
    low = exponent == const(0)
    if mode == "up":
        more = tirx.Select(low, rest > const(0x400000), rest > const(0))
    elif mode == "down":
        more = tirx.const(False, "bool")
    else:
        more = tirx.Select(low, rest >= const(0x600000), rest >= const(0x400000))
    code = exponent + tirx.Select(more, const(1), const(0))
    special = exponent == const(255)
    if saturate:
        code = tirx.min(code, const(254))
    return tirx.Select(special, const(255), code).astype("uint8")


def decode_power(code: Expr) -> Expr:
    """The float32 of an E8M0 code."""
    wide = code.astype("uint32")
    bits = tirx.Select(
        wide == tirx.const(0, "uint32"),
        tirx.const(0x400000, "uint32"),
        wide << tirx.const(23, "uint32"),
    )
    nan = tirx.const(0x7FC00000, "uint32")
    return tirx.reinterpret("float32", tirx.Select(wide == tirx.const(255, "uint32"), nan, bits))
