"""``exp`` for a softmax, where no argument is above 0."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.ir.prim import Let

LOWEST = -3.4028234663852886e38
"""The lowest finite float32: what a maximum starts from, so that no difference is inf - inf."""
_LOG2E = 1.44269504088896341
_BOTTOM = -87.0
_ROUND = 12582912.0
_COEFFICIENTS = (
    1.535336188319500e-4,
    1.339887440266574e-3,
    9.618437357674640e-3,
    5.550332471162809e-2,
    2.402264791363012e-1,
    6.931472028550421e-1,
    1.0,
)


def _f(value: float) -> Expr:
    return tirx.const(value, "float32")


def _bind(value: Expr, body: Callable[[Expr], Expr], name: str) -> Expr:
    var = Var(name, str(value.ty.dtype))
    return Let(var, value, body(var))


def power(x: Expr) -> Expr:
    """``e^x`` for ``x <= 0``, 0 below -87; a NaN stays one.

    The relative error is at most 2e-7 + 1.4e-8 |x|: where it is large, the power is small.

    ``2^(x log2 e)``: adding ``1.5 * 2^23`` rounds to a whole number, which then stands in the low
    bits; the rest, in [-0.5, 0.5], goes into the polynomial of Cephes' ``exp2f`` (S. Moshier).
    """

    def rounded(v: Expr) -> Expr:
        # In this order a NaN passes.
        clamped = tirx.max(_f(_BOTTOM), v)
        return _bind(
            clamped,
            lambda c: _bind(c * _f(_LOG2E) + _f(_ROUND), lambda t: raised(v, c, t), "t"),
            "c",
        )

    def raised(v: Expr, c: Expr, t: Expr) -> Expr:
        rest = c * _f(_LOG2E) - (t - _f(_ROUND))
        return _bind(rest, lambda f: scaled(v, t, polynomial(f)), "f")

    def polynomial(f: Expr) -> Expr:
        total: Expr = _f(_COEFFICIENTS[0])
        for coefficient in _COEFFICIENTS[1:]:
            total = total * f + _f(coefficient)
        return total

    def scaled(v: Expr, t: Expr, p: Expr) -> Expr:
        bits = (tirx.reinterpret("int32", t) << tirx.const(23, "int32")) + tirx.const(
            0x3F800000, "int32"
        )
        y = p * tirx.reinterpret("float32", bits)
        return tirx.Select(v < _f(_BOTTOM), _f(0.0), y)

    return _bind(x, rounded, "x")
