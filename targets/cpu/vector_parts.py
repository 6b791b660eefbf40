"""Words that the written-out functions share: constants, bindings, polynomials, clamps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir.prim import Let

INFINITY, NAN = float("inf"), float("nan")
MAGIC = 12582912.0
"""1.5 * 2^23: a float32 of at most 2^22 added to it is rounded to a whole number."""
EXP = tuple(
    float.fromhex(c)
    for c in ("0x1.0F9F9Cp-7", "0x1.573A1Ap-5", "0x1.555A80p-3", "0x1.FFFDC6p-2", "0x1.FFFFF6p-1")
)
"""``(e^r - 1) / r`` on [-ln 2 / 2, ln 2 / 2] (XNNPACK ``rr2-p5``), highest power first."""


def f(value: float) -> Expr:
    return tirx.const(value, "float32")


def i(value: int) -> Expr:
    return tirx.const(value, "int32")


def d(value: float) -> Expr:
    return tirx.const(value, "float64")


def bind(value: Expr, body: Callable[[Expr], Expr], name: str = "t") -> Expr:
    """``body`` of a variable that holds ``value``, so that it is computed once;
    :mod:`burnish.targets.cpu.straighten` makes a store of it.
    """
    var = Var(name, str(value.ty.dtype))
    return Let(var, value, body(var))


def poly(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Highest power first; one multiply-add a coefficient."""
    dtype = str(x.ty.dtype)
    total: Expr = tirx.const(coefficients[0], dtype)
    for coefficient in coefficients[1:]:
        total = total * x + tirx.const(coefficient, dtype)
    return total


def select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    return tirx.Select(condition, yes, no)


def clamp(v: Expr, low: float, high: float) -> Expr:
    """``v`` within ``[low, high]``; NaN stays."""
    dtype = str(v.ty.dtype)
    bottom, top = tirx.const(low, dtype), tirx.const(high, dtype)
    return bind(select(v < bottom, bottom, v), lambda w: select(w > top, top, w), "raised")


def bits(v: Expr) -> Expr:
    return tirx.reinterpret("int32", v)


def from_bits(v: Expr) -> Expr:
    return tirx.reinterpret("float32", v)


def magnitude(v: Expr) -> Expr:
    """The bits of ``|v|``; a NaN is what is above those of infinity."""
    return bits(v) & i(0x7FFFFFFF)


def by_power_of_two(p: Expr, code: Expr) -> Expr:
    """``p * 2^n`` for n in [-160, 160], where the low 9 bits of ``code`` are those of n + 254.

    2^n goes in two factors, so that neither overflows and a subnormal result is rounded once.
    """

    def scaled(c: Expr) -> Expr:
        return bind(
            c >> i(1), lambda h: p * from_bits(h << i(23)) * from_bits((c - h) << i(23)), "half"
        )

    return bind(code, scaled, "code")
