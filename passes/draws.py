"""Random numbers as kernels of a key: the same key, place and stream give the same number.

An element's number is a hash of its place and the key, so that elements are drawn in any order
and by any number of threads. The hash is ``lowbias32`` with the constants found by C. Wellons'
hash prospector (a bijection of 32 bits whose bits are all but independent of the input's), taken
twice, with one half of the key each time; ours computes in 64 bits, since TVM takes for granted
that integer products do not wrap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.runtime.random_keys import NO_SEED, RANDOM_KEY

_MASK = 0xFFFFFFFF


def _int(value: int) -> Expr:
    return tirx.const(value, "int64")


def _hash(x: Expr) -> Expr:
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        x = tirx.bitwise_and(
            tirx.bitwise_xor(x, tirx.shift_right(x, _int(shift))) * _int(factor), _int(_MASK)
        )
    return tirx.bitwise_xor(x, tirx.shift_right(x, _int(15)))


def bits(key: te.Tensor, shape: Sequence[Any], stream: int) -> te.Tensor:
    """Numbers of 32 bits, int64; another ``stream`` gives others of the same key."""

    def element(*at: Any) -> Expr:
        flat: Expr = _int(0)
        for index, extent in zip(at, shape, strict=True):
            flat = flat * tirx.Cast("int64", extent) + index.astype("int64")
        first = _hash(tirx.bitwise_and(flat + key[0], _int(_MASK)))
        return _hash(tirx.bitwise_and(first + key[1] + _int(stream * 0x632BE5AB), _int(_MASK)))

    return te.compute(shape, element, name="bits")


def uniform(key: te.Tensor, shape: Sequence[Any], stream: int = 0) -> te.Tensor:
    """float32 of [0, 1), multiples of 2^-24."""
    drawn = bits(key, shape, stream)
    return te.compute(
        shape,
        lambda *at: (
            tirx.shift_right(drawn(*at), _int(8)).astype("float32")
            * tirx.const(2.0**-24, "float32")
        ),
        name="uniform",
    )


def normal(key: te.Tensor, shape: Sequence[Any]) -> te.Tensor:
    """float32 of mean 0 and deviation 1, by Box and Muller's transform."""
    first, second = uniform(key, shape, 1), uniform(key, shape, 2)

    def element(*at: Any) -> Expr:
        # 1 - u is never 0.
        radius = tirx.sqrt(tirx.const(-2.0, "float32") * tirx.log(1.0 - first(*at)))
        return radius * tirx.cos(tirx.const(2 * math.pi, "float32") * second(*at))

    return te.compute(shape, element, name="normal")


def draw(builder: relax.BlockBuilder, key: relax.Expr, like: relax.Expr, kind: str) -> relax.Expr:
    """``kind`` "uniform" or "normal": numbers for each element of ``like``, float32."""
    make = {"uniform": uniform, "normal": normal}[kind]
    return builder.call_te(lambda k, x: make(k, list(x.shape)), key, like, primfunc_name_hint=kind)


def key_of(number: int, seed: int | None) -> relax.Expr:
    """A key for a call of the operator of this number."""
    source = np.array([number, NO_SEED if seed is None else seed], np.int64)
    ty = relax.TensorType([2], "int64")
    return relax.call_pure_packed(RANDOM_KEY, relax.const(source, "int64"), ty_args=ty)
