"""sin, cos and tan in float32 for every argument, by integer arithmetic.

Payne and Hanek's reduction: an argument is a whole number m of 24 bits times 2^E, and of its
product with 2 / pi only what is below 4 matters, so a window of 96 bits of 2 / pi is taken, from
the first bit that still does. The product is exact to 2^-70; its two bits above the point are
the quadrant, the rest, as a signed fraction, is the reduced argument to full relative precision.
It costs the same for 1e-3 and 1e30 and has no branch, which a vector could not take.

The window is chosen by selects between the seven words that float32 can reach, which is what a
table look-up is in a vector register. Bounds: 2e-7 absolute (1e-7 measured), and 4e-7 relative
for tan. Polynomials: Cephes ``sinf`` and ``cosf``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from tvm import tirx
from tvm.ir import Expr

from burnish.targets.cpu.vector_parts import (
    NAN,
    bind,
    bits,
    f,
    from_bits,
    i,
    magnitude,
    poly,
    select,
)

_TWO_OVER_PI = (
    0,
    0xA2F9836E,
    0x4E441529,
    0xFC2757D1,
    0xF534DDC0,
    0xDB629599,
    0x3C439041,
    0xFE5163AB,
)
_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_QUARTER_PI = 0.785398163397448
_HALF_PI = 1.5707963267948966
_Finish = Callable[[Expr, Expr, Expr], Expr]


def _u(value: int, dtype: str = "uint32") -> Expr:
    return tirx.const(value, dtype)


def _bind_all(values: Sequence[Expr], body: Callable[[list[Expr]], Expr], name: str) -> Expr:
    done: list[Expr] = []

    def rest(left: Sequence[Expr]) -> Expr:
        if not left:
            return body(done)

        def bound(var: Expr) -> Expr:
            done.append(var)
            return rest(left[1:])

        return bind(left[0], bound, name)

    return rest(list(values))


def _window(exponent: Expr, body: Callable[[list[Expr]], Expr]) -> Expr:
    """Three words of 2 / pi from bit ``exponent - 120`` of the table on."""

    def words(start: Expr) -> Expr:
        word = start >> i(5)
        chosen: list[Expr] = []
        for k in range(4):
            value: Expr = _u(_TWO_OVER_PI[4 + k])
            for j in (3, 2, 1, 0):
                value = select(word <= i(j), _u(_TWO_OVER_PI[j + k]), value)
            chosen.append(value)
        shift = (start & i(31)).astype("uint32")
        return bind(shift, lambda s: _bind_all(chosen, lambda w: shifted(w, s), "word"), "shift")

    def shifted(w: list[Expr], s: Expr) -> Expr:
        # In two steps: a shift by 32 is not defined.
        values = [(a << s) | ((b >> _u(1)) >> (_u(31) - s)) for a, b in pairwise(w)]
        return _bind_all(values, body, "window")

    return bind(tirx.max(exponent - i(120), i(6)), words, "start")


def _reduced(x: Expr, finish: _Finish) -> Expr:
    """``finish(x, quadrant, r)`` with ``|x| = quadrant * pi / 2 + r`` and ``|r| <= pi / 4``."""
    wide = "uint64"

    def body(v: Expr) -> Expr:
        return bind(magnitude(v), lambda size: scaled(v, size), "size")

    def scaled(v: Expr, size: Expr) -> Expr:
        mantissa = ((size & i(0x7FFFFF)) | i(0x800000)).astype(wide)
        return bind(
            mantissa,
            lambda m: _window(size >> i(23), lambda w: product(v, m, w)),
            "mantissa",
        )

    def product(v: Expr, m: Expr, w: list[Expr]) -> Expr:
        first, second, third = (m * word.astype(wide) for word in w)
        low = second + (third >> _u(32, wide))
        return bind(
            low,
            lambda s: bind(first + (s >> _u(32, wide)), lambda h: fraction(v, h, s), "high"),
            "low",
        )

    def fraction(v: Expr, high: Expr, low: Expr) -> Expr:
        top = high.astype("uint32")
        return bind(
            top,
            lambda t: bind(
                # 62 bits below the point: the upper 32 of them signed, and the lower 30.
                ((t << _u(2)) | ((low.astype("uint32")) >> _u(30))).astype("int32"),
                lambda upper: angle(v, t, upper, low),
                "upper",
            ),
            "top",
        )

    def angle(v: Expr, top: Expr, upper: Expr, low: Expr) -> Expr:
        lower = (low.astype("uint32") & _u(0x3FFFFFFF)).astype("int32").astype("float32")
        rest = lower * f(_HALF_PI * 2.0**-62)
        near = from_bits(magnitude(v)) < f(_QUARTER_PI)
        r = select(
            near, from_bits(magnitude(v)), upper.astype("float32") * f(_HALF_PI * 2.0**-32) + rest
        )
        quadrant = (top >> _u(30)) + ((top >> _u(29)) & _u(1))
        q = select(near, i(0), quadrant.astype("int32"))
        return bind(q, lambda q: bind(r, lambda r: finish(v, q, r), "r"), "quadrant")

    return bind(x, body, "x")


def _both(q: Expr, r: Expr, body: Callable[[Expr, Expr], Expr]) -> Expr:
    """``body(sin r, cos r)``, exchanged in odd quadrants."""

    def values(z: Expr) -> Expr:
        sine = poly(z, _SIN) * z * r + r
        cosine = poly(z, _COS) * z * z - z * f(0.5) + f(1.0)
        return _bind_all([sine, cosine], lambda pair: exchanged(*pair), "part")

    def exchanged(sine: Expr, cosine: Expr) -> Expr:
        odd = (q & i(1)) != i(0)
        return body(select(odd, cosine, sine), select(odd, sine, cosine))

    return bind(r * r, values, "z")


def _finite(v: Expr, y: Expr) -> Expr:
    return select(magnitude(v) < i(0x7F800000), y, f(NAN))


def _negated(y: Expr, sign: Expr) -> Expr:
    """``y``, negated where the top bit of ``sign`` is set."""
    return from_bits(bits(y) ^ (sign & i(-0x80000000)))


def sin(x: Expr) -> Expr:
    def finish(v: Expr, q: Expr, r: Expr) -> Expr:
        sign = bits(v) ^ (q << i(30))
        return _finite(v, _both(q, r, lambda s, _c: _negated(s, sign)))

    return _reduced(x, finish)


def cos(x: Expr) -> Expr:
    def finish(v: Expr, q: Expr, r: Expr) -> Expr:
        return _finite(v, _both(q, r, lambda _s, c: _negated(c, (q + i(1)) << i(30))))

    return _reduced(x, finish)


def tan(x: Expr) -> Expr:
    def finish(v: Expr, q: Expr, r: Expr) -> Expr:
        sign = bits(v) ^ (q << i(31))
        return _finite(v, _both(q, r, lambda s, c: _negated(s / c, sign)))

    return _reduced(x, finish)
