"""pow in float32, special values as C99 (annex F.9.4.4) and IEEE 754 have them.

1. Exponents that torch treats apart are products, quotients and square roots:
   -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4.
2. Else ``2^(y log2 |x|)``, the logarithm in float64: y log2 x is below 2^8 where the result is
   finite, so it needs 8 bits more than float32 has. log2 is the series of the area tangent in
   ``(m - 1) / (m + 1)`` for m in [sqrt(1/2), sqrt(2)), cut where it adds less than 2e-12.
3. A negative base takes whole exponents only; odd ones give the sign, which -0 has too.

Bound: 2e-7 relative, over all pairs.
"""

from __future__ import annotations

import math

from tvm import tirx
from tvm.ir import Expr

from burnish.targets.cpu.vector_parts import (
    EXP,
    INFINITY,
    NAN,
    bind,
    bits,
    by_power_of_two,
    clamp,
    d,
    f,
    from_bits,
    i,
    magnitude,
    poly,
    select,
)

_MAGIC = 6755399441055744.0
"""1.5 * 2^52."""
_TERMS = 7
_SERIES = tuple(2 / (math.log(2) * (2 * k + 1)) for k in reversed(range(_TERMS)))


def power(base: Expr, exponent: Expr) -> Expr:
    known = getattr(exponent, "value", None)
    simple = _simple(base, float(known)) if isinstance(known, int | float) else None
    if simple is not None:
        return simple

    def general(x: Expr, y: Expr) -> Expr:
        """Rules 2 and 3."""
        absolute = _absolute(x, y)
        return bind(absolute, lambda p: _signed(x, y, p), "p")

    return bind(base, lambda x: bind(exponent, lambda y: general(x, y), "y"), "x")


def _simple(base: Expr, exponent: float) -> Expr | None:
    """Rule 1."""

    def squared(b: Expr) -> Expr:
        return bind(b * b, lambda s: s, "square")

    if exponent == 0:
        return f(1.0)
    if exponent == 1:
        return base
    if exponent == -1:
        return f(1.0) / base
    if exponent == 0.5:
        return tirx.sqrt(base)
    if exponent == -0.5:
        return f(1.0) / tirx.sqrt(base)
    if exponent == 2:
        return bind(base, squared, "b")
    if exponent == 3:
        return bind(base, lambda b: b * b * b, "b")
    if exponent == 4:
        return bind(base, lambda b: bind(b * b, squared, "b2"), "b")
    if exponent == -2:
        return bind(base, lambda b: f(1.0) / (b * b), "b")
    return None


def _signed(x: Expr, y: Expr, p: Expr) -> Expr:
    """Rule 3, ``p`` being ``|x|^y``."""
    a = from_bits(magnitude(x))
    infinity = f(INFINITY)
    whole = tirx.floor(y) == y
    # Beyond 2^24 every float32 is even; comparisons send NaN there.
    limit = f(2.0**24)
    bounded = select(y < limit, y, limit)

    def signed(v: Expr) -> Expr:
        odd = (select(v > -limit, v, -limit).astype("int32") & i(1)) != i(0)
        flip = select(tirx.all(whole, odd), bits(x) & i(-0x80000000), i(0))
        undefined = tirx.all(x < f(0.0), tirx.Not(whole), a < infinity)
        z = select(undefined, f(NAN), from_bits(bits(p) ^ flip))
        endless = magnitude(y) == i(0x7F800000)
        one = tirx.any(y == f(0.0), x == f(1.0), tirx.all(a == f(1.0), endless))
        return select(one, f(1.0), z)

    return bind(bounded, signed, "bounded")


def _absolute(x: Expr, y: Expr) -> Expr:
    """``|x|^y``."""

    def raised(log2: Expr) -> Expr:
        product = bind(y.astype("float64") * log2, lambda v: clamp(v, -160.0, 160.0), "product")
        return bind(product, lambda t: bind(code_of(t), lambda c: power_of(t, c), "code"), "t")

    def code_of(t: Expr) -> Expr:
        return tirx.reinterpret("int64", t + d(_MAGIC + 254)).astype("int32")

    def power_of(t: Expr, code: Expr) -> Expr:
        # From the integer: TVM simplifies t - ((t + c) - c) to 0.
        n = (code - i(254)).astype("float64")
        r = ((t - n) * d(math.log(2))).astype("float32")
        value = bind(r, lambda r: poly(r, [*EXP, 1.0]), "r")
        return bind(value, lambda p: by_power_of_two(p, code), "p")

    return bind(_log2(x), raised, "log2")


def _log2(x: Expr) -> Expr:
    """log2 of a float32 ``|x|``, in float64."""
    return bind(from_bits(magnitude(x)), _log2_of, "a")


def _log2_of(a: Expr) -> Expr:
    half_root, lift = 0x3F3504F3, 23
    small = a < f(2.0**-126)
    lifted = select(small, a * f(2.0**lift), a)

    def split(b: Expr) -> Expr:
        return bind((b - i(half_root)) >> i(23), lambda e: ratio(b, e), "e")

    def ratio(b: Expr, e: Expr) -> Expr:
        n = (e - select(small, i(lift), i(0))).astype("float64")
        m = from_bits(b - (e << i(23))).astype("float64")
        s = bind(m, lambda m: (m - d(1.0)) / (m + d(1.0)), "m")
        return bind(s, lambda s: bind(s * s, lambda z: special(s * poly(z, _SERIES) + n), "z"), "s")

    def special(value: Expr) -> Expr:
        value = select(a == f(0.0), d(-INFINITY), value)
        # Infinity and NaN are their own logarithms.
        return select(bits(a) < i(0x7F800000), value, a.astype("float64"))

    return bind(bits(lifted), split, "bits")
