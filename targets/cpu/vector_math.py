"""exp, tanh, erf, sigmoid and log in float32 as straight-line code that vectorizes.

LLVM turns these intrinsics into one scalar library call an element. The replacements' bounds
are tested against float64 over the whole range, special values included (a sigmoid too small
for a normal float32 may become 0):

======== ============================================================ =====================
function method                                                       bound
======== ============================================================ =====================
exp      Cody-Waite reduction, degree-6 polynomial (Cephes ``expf``)  2e-7 relative
log      exponent split, degree-9 polynomial (Cephes ``logf``)        3e-7 rel. or absolute
tanh     odd polynomial below 0.625, else by exp (Cephes ``tanhf``)   3e-7 relative
sigmoid  1 / (1 + exp(-x))                                            3e-7 relative
erf      rational minimax on [-4, 4] (Eigen ``generic_fast_erf``)     5e-7 absolute
======== ============================================================ =====================

A division by a constant becomes a multiplication by its reciprocal, rounded once: 1.5 units in
the last place instead of a half, where the processor takes ten times as long to divide.

The polynomials are those of S. Moshier's Cephes library and of Eigen; ours differ in that 2^n is
scaled in two steps, so that subnormal results are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr, Var
from tvm.ir.prim import Div, Let

_LOG2E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP_TOP, _EXP_BOTTOM = 88.7228393554687, -103.972084045410
_EXP = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_TANH = (
    -5.70498872745e-3,
    2.06390887954e-2,
    -5.37397155531e-2,
    1.33314422036e-1,
    -3.33332819422e-1,
)
_ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def _f(value: float) -> Expr:
    return tirx.const(value, "float32")


def _i(value: int) -> Expr:
    return tirx.const(value, "int32")


def _bind(value: Expr, body: Callable[[Expr], Expr], name: str) -> Expr:
    var = Var(name, str(value.ty.dtype))
    return Let(var, value, body(var))


def _poly(x: Expr, coefficients: Sequence[float]) -> Expr:
    total: Expr = _f(coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + _f(coefficient)
    return total


def _select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    return tirx.Select(condition, yes, no)


def _is_nan(v: Expr) -> Expr:
    """By the bits: a comparison of ``v`` with itself is simplified away."""
    return (tirx.reinterpret("int32", v) & _i(0x7FFFFFFF)) > _i(0x7F800000)


def _power_of_two(n: Expr) -> Expr:
    """2^n for whole float n in [-126, 127]."""
    return tirx.reinterpret("float32", (n.astype("int32") + _i(127)) << _i(23))


def exp(x: Expr) -> Expr:
    def reduced(v: Expr) -> Expr:
        clamped = tirx.max(tirx.min(v, _f(_EXP_TOP)), _f(_EXP_BOTTOM))
        return _bind(clamped, lambda c: with_exponent(v, c), "clamped")

    def with_exponent(v: Expr, c: Expr) -> Expr:
        n = tirx.floor(c * _f(_LOG2E) + _f(0.5))
        return _bind(n, lambda m: polynomial(v, c, m), "n")

    def polynomial(v: Expr, c: Expr, n: Expr) -> Expr:
        r = c - n * _f(_LN2_HIGH) - n * _f(_LN2_LOW)
        return _bind(r, lambda q: scaled(v, n, _poly(q, _EXP) * q * q + q + _f(1.0)), "r")

    def scaled(v: Expr, n: Expr, p: Expr) -> Expr:
        half = tirx.floor(n * _f(0.5))
        y = _bind(half, lambda h: p * _power_of_two(h) * _power_of_two(n - h), "half")
        y = _select(v > _f(_EXP_TOP), _f(float("inf")), y)
        y = _select(v < _f(_EXP_BOTTOM), _f(0.0), y)
        return _select(_is_nan(v), v, y)

    return _bind(x, reduced, "x")


def sigmoid(x: Expr) -> Expr:
    return _f(1.0) / (_f(1.0) + exp(_f(0.0) - x))


def tanh(x: Expr) -> Expr:
    def body(v: Expr) -> Expr:
        size = tirx.max(v, _f(0.0) - v)
        inner = _bind(v * v, lambda z: _poly(z, _TANH) * z * v + v, "z")
        outer = _f(1.0) - _f(2.0) / (exp(size + size) + _f(1.0))
        outer = _select(v < _f(0.0), _f(0.0) - outer, outer)
        return _select(_is_nan(v), v, _select(size < _f(0.625), inner, outer))

    return _bind(x, body, "x")


def erf(x: Expr) -> Expr:
    def body(v: Expr) -> Expr:
        clamped = tirx.max(tirx.min(v, _f(4.0)), _f(-4.0))

        def rational(c: Expr) -> Expr:
            ratio = _bind(c * c, lambda z: c * _poly(z, _ERF_P) / _poly(z, _ERF_Q), "z")
            return _select(_is_nan(v), v, ratio)

        return _bind(clamped, rational, "clamped")

    return _bind(x, body, "x")


def log(x: Expr) -> Expr:
    tiny = 1.17549435e-38

    def body(v: Expr) -> Expr:
        small = v < _f(tiny)
        lifted = _select(small, v * _f(8388608.0), v)
        return _bind(lifted, lambda w: split(v, w, small), "lifted")

    def split(v: Expr, w: Expr, small: Expr) -> Expr:
        bits = tirx.reinterpret("int32", w)
        e = ((bits >> _i(23)) & _i(0xFF)).astype("float32") - _f(126.0)
        e = e - _select(small, _f(23.0), _f(0.0))
        m = tirx.reinterpret("float32", (bits & _i(0x007FFFFF)) | _i(0x3F000000))
        return _bind(m, lambda f: polynomial(v, f, e), "m")

    def polynomial(v: Expr, f: Expr, e: Expr) -> Expr:
        low = f < _f(0.707106781186547524)
        exponent = e - _select(low, _f(1.0), _f(0.0))
        mantissa = _select(low, f + f, f) - _f(1.0)
        return _bind(exponent, lambda n: _bind(mantissa, lambda q: combine(v, n, q), "q"), "e")

    def combine(v: Expr, n: Expr, q: Expr) -> Expr:
        z = q * q
        y = q * z * _poly(q, _LOG) + n * _f(_LN2_LOW) - z * _f(0.5)
        y = q + y + n * _f(_LN2_HIGH)
        y = _select(v == _f(float("inf")), v, y)
        y = _select(v == _f(0.0), _f(float("-inf")), y)
        return _select(v < _f(0.0), _f(float("nan")), _select(_is_nan(v), v, y))

    return _bind(x, body, "x")


def _pow(base: Expr, exponent: Expr) -> Expr | None:
    """Small constant exponents only; the rest stays with the library."""
    value = getattr(exponent, "value", None)
    if value == 2:
        return _bind(base, lambda b: b * b, "b")
    if value == 3:
        return _bind(base, lambda b: b * b * b, "b")
    return None


_REPLACED: dict[str, Callable[..., Expr | None]] = {
    "tirx.exp": exp,
    "tirx.tanh": tanh,
    "tirx.erf": erf,
    "tirx.sigmoid": sigmoid,
    "tirx.log": log,
    "tirx.pow": _pow,
}


def vectorized_math(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """``func`` with float32 transcendental functions written out."""

    def replaced(call: Call) -> Expr:
        make = _REPLACED.get(getattr(call.op, "name", ""))
        if make is None or str(call.ty.dtype) != "float32":
            return call
        new = make(*call.args)
        return call if new is None else new

    def multiplied(division: Div) -> Expr:
        by = getattr(division.b, "value", None)
        if str(division.ty.dtype) != "float32" or not isinstance(by, float) or not _invertible(by):
            return division
        return division.a * _f(1.0 / by)

    rules = [(Call, replaced), (Div, multiplied)]
    body = tvm_ffi.structural_map(func.body, rules, order="post")
    return func.with_body(body)


def _invertible(value: float) -> bool:
    """Whether both the constant and its reciprocal are normal float32 numbers."""
    return 2.0**-125 < abs(value) < 2.0**125
