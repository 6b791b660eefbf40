"""Transcendental functions in float32 as straight-line code that vectorizes.

LLVM turns these intrinsics into one scalar library call an element. The replacements' bounds
are tested against float64 over the whole range, special values included (a sigmoid too small
for a normal float32 may become 0). The last column counts AVX-512 instructions a vector.

======== ================================================================ ================ ====
function method                                                           bound
======== ================================================================ ================ ====
exp      Cody-Waite reduction, degree-5 polynomial (XNNPACK)              2e-7 relative      20
log      exponent split, degree-9 polynomial (Cephes ``logf``)            3e-7 rel. or abs.  35
tanh     rational minimax, degrees 9 and 8 (Eigen ``ptanh_float``)        3e-7 relative      16
sigmoid  1 / (1 + exp(-x)), with an exp that need not be subnormal        3e-7 relative      17
erf      rational minimax on [-4, 4] (Eigen ``generic_fast_erf``)         5e-7 absolute      18
sin, cos Payne-Hanek reduction, :mod:`burnish.targets.cpu.vector_trig`    2e-7 absolute      104
tan      sin / cos                                                        4e-7 relative      105
pow      exp(y log x) through float64, special values as C99 has them,    2e-7 relative      110
         :mod:`burnish.targets.cpu.vector_pow`
rsqrt    1 / sqrt(x), each exactly rounded                                2e-7 relative      4
======== ================================================================ ================ ====

A division by a constant becomes a multiplication by its reciprocal, rounded once: 1.5 units in
the last place instead of a half, where the processor takes ten times as long to divide.

Each function divides once at most: the divider works beside the multipliers, and is busy for
about as long as they are with the polynomials. The polynomials are those of S. Moshier's Cephes
library, of Eigen and of XNNPACK; ours differ in that 2^n is scaled in two steps, so that
subnormal results are kept.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Expr
from tvm.ir.prim import EQ, NE, Div, Max, Min

from burnish.targets.cpu.extremes import maximum, minimum
from burnish.targets.cpu.straighten import straightened
from burnish.targets.cpu.vector_parts import (
    EXP,
    INFINITY,
    MAGIC,
    NAN,
    bind,
    bits,
    by_power_of_two,
    clamp,
    f,
    from_bits,
    i,
    magnitude,
    poly,
    select,
)
from burnish.targets.cpu.vector_pow import power
from burnish.targets.cpu.vector_trig import cos, sin, tan

_LOG2E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
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
_TANH_P = (1.394553628e-8, 2.102733560e-5, 3.520756727e-3, 1.340216100e-1)
_TANH_Q = (8.015776984e-7, 3.326951409e-4, 2.597254514e-2, 4.673548340e-1, 1.0)
_TANH_TOP = 8.01773357391357422
"""From here on the approximation is exactly 1."""
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


def _exponential(
    x: Expr, low: float, high: float, bias: int, sign: int, finish: Callable[[Expr, Expr], Expr]
) -> Expr:
    """``finish(p, t)`` with ``e^(sign * x) = p * 2^n`` and the bits of ``t`` ending in n + bias.

    ``sign * x`` is clamped to ``[low, high]`` first.
    """
    s = float(sign)
    magic = f(MAGIC + bias)

    def rounded(c: Expr) -> Expr:
        return bind(c * f(s * _LOG2E) + magic, lambda t: reduced(c, t), "t")

    def reduced(c: Expr, t: Expr) -> Expr:
        return bind(
            t - magic,
            lambda n: bind(
                c - n * f(s * _LN2_HIGH) - n * f(s * _LN2_LOW), lambda r: polynomial(r, t), "r"
            ),
            "n",
        )

    def polynomial(r: Expr, t: Expr) -> Expr:
        powers = range(len(EXP), 0, -1)
        terms = [value * s**power for value, power in zip(EXP, powers, strict=True)]
        return bind(poly(r, [*terms, 1.0]), lambda p: finish(p, t), "p")

    limits = (low, high) if sign > 0 else (-high, -low)
    return bind(x, lambda v: bind(clamp(v, *limits), rounded, "clamped"), "x")


def exp(x: Expr) -> Expr:
    return _exponential(x, -105.0, 89.5, 254, 1, lambda p, t: by_power_of_two(p, bits(t)))


def sigmoid(x: Expr) -> Expr:
    """2^128 in one step is infinity, which is as good as e^89 here."""

    def quotient(p: Expr, t: Expr) -> Expr:
        return f(1.0) / (p * from_bits(bits(t) << i(23)) + f(1.0))

    return _exponential(x, -87.0, 89.0, 127, -1, quotient)


def tanh(x: Expr) -> Expr:
    def rational(c: Expr) -> Expr:
        return bind(
            c * c,
            lambda z: (poly(z, _TANH_P) * (z * c) + c) / poly(z, _TANH_Q),
            "z",
        )

    return bind(x, lambda v: bind(clamp(v, -_TANH_TOP, _TANH_TOP), rational, "clamped"), "x")


def erf(x: Expr) -> Expr:
    def rational(c: Expr) -> Expr:
        return bind(c * c, lambda z: c * poly(z, _ERF_P) / poly(z, _ERF_Q), "z")

    return bind(x, lambda v: bind(clamp(v, -4.0, 4.0), rational, "clamped"), "x")


def log(x: Expr) -> Expr:
    half_root, tiny, lift = 0x3F3504F3, 2.0**-126, 23

    def body(v: Expr) -> Expr:
        small = v < f(tiny)
        lifted = select(small, v * f(2.0**lift), v)
        return bind(bits(lifted), lambda b: split(v, b, small), "bits")

    def split(v: Expr, b: Expr, small: Expr) -> Expr:
        return bind((b - i(half_root)) >> i(23), lambda e: reduced(v, b, e, small), "e")

    def reduced(v: Expr, b: Expr, e: Expr, small: Expr) -> Expr:
        n = e.astype("float32") - select(small, f(lift), f(0.0))
        q = from_bits(b - (e << i(23))) - f(1.0)
        return bind(n, lambda n: bind(q, lambda q: combine(v, n, q), "q"), "n")

    def combine(v: Expr, n: Expr, q: Expr) -> Expr:
        z = q * q
        y = q * z * poly(q, _LOG) + n * f(_LN2_LOW) - z * f(0.5)
        y = q + y + n * f(_LN2_HIGH)
        y = select(v == f(0.0), f(-INFINITY), y)
        # Infinity and NaN are their own logarithms.
        y = select(magnitude(v) < i(0x7F800000), y, v)
        return select(v < f(0.0), f(NAN), y)

    return bind(x, body, "x")


def rsqrt(x: Expr) -> Expr:
    """TVM writes its own rsqrt one element at a time."""
    return f(1.0) / tirx.sqrt(x)


_REPLACED: dict[str, Callable[..., Expr | None]] = {
    "tirx.exp": exp,
    "tirx.tanh": tanh,
    "tirx.erf": erf,
    "tirx.sigmoid": sigmoid,
    "tirx.log": log,
    "tirx.pow": power,
    "tirx.sin": sin,
    "tirx.cos": cos,
    "tirx.tan": tan,
    "tirx.rsqrt": rsqrt,
}


def vectorized_math(func: tirx.PrimFunc, *, exact_extremes: bool = True) -> tirx.PrimFunc:
    """``func`` with float32 transcendental functions written out, and maxima that let NaN through.

    Without ``exact_extremes`` a maximum may lose a NaN among its operands (softmax's may).
    """

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
        return division.a * f(1.0 / by)

    def compared(node: EQ | NE) -> Expr:
        """LLVM's verifier refuses TVM's comparison of truth values."""
        if str(node.a.ty.dtype) != "bool":
            return node
        a, b = node.a.astype("int8"), node.b.astype("int8")
        return a == b if isinstance(node, EQ) else a != b

    rules: list[tuple[type, Callable[..., Expr]]] = [
        (Call, replaced),
        (Div, multiplied),
        (EQ, compared),
        (NE, compared),
    ]
    if exact_extremes:
        rules += [(Max, maximum), (Min, minimum)]
    body = tvm_ffi.structural_map(func.body, rules, order="post")
    return func.with_body(straightened(body))


def _invertible(value: float) -> bool:
    """Whether both the constant and its reciprocal are normal float32 numbers."""
    return 2.0**-125 < abs(value) < 2.0**125
