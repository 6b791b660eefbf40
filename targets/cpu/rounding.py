"""Conversions between float32 and bfloat16 written out on the bits.

To bfloat16 they round to nearest, ties to even; infinities stay, subnormal numbers stay, and a
NaN stays one (made quiet). TVM's own conversion turns some NaN into infinities or zeros, repeats
its operand, and passes over conversions inside of ``Let``.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir.prim import Cast, Let


def _u(value: int) -> Expr:
    return tirx.const(value, "uint32")


def to_bfloat16(value: Expr) -> Expr:
    """A float32 scalar, rounded."""
    var = Var("wide", "float32")
    bits = tirx.reinterpret("uint32", var)
    top = bits >> _u(16)
    rounded = (bits + _u(0x7FFF) + (top & _u(1))) >> _u(16)
    nan = (bits & _u(0x7FFFFFFF)) > _u(0x7F800000)
    narrow = tirx.Select(nan, top | _u(0x40), rounded).astype("uint16")
    return tirx.reinterpret("bfloat16", Let(var, value, narrow))


def from_bfloat16(value: Expr) -> Expr:
    """A bfloat16 scalar as float32, exactly."""
    bits = tirx.reinterpret("uint16", value).astype("uint32")
    return tirx.reinterpret("float32", bits << _u(16))


def written_out(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """``func`` with its conversions between float32 and bfloat16 replaced."""

    def replaced(cast: Cast) -> Expr:
        types = (str(cast.value.ty.dtype), str(cast.ty.dtype))
        if types == ("float32", "bfloat16"):
            return to_bfloat16(cast.value)
        if types == ("bfloat16", "float32"):
            return from_bfloat16(cast.value)
        return cast

    return func.with_body(tvm_ffi.structural_map(func.body, [(Cast, replaced)], order="post"))
