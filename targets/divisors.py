"""Divisors that are negative numbers, written another way.

TVM's canonical simplifier makes ``x % -3 * -1`` of ``(3 - x) % 3``, and later passes take such a
remainder for another one: ``(x + 1) % -3`` became ``x % -3``, and a kernel read beside its row.
"""

from __future__ import annotations

from typing import Any, TypeVar

import tvm_ffi
from tvm import tirx
from tvm.tirx import FloorDiv, FloorMod, IntImm

T = TypeVar("T")


def without_negative_divisors(node: T) -> T:
    """An expression or statement that computes the same, each divisor that is a number positive.

    The forms taken are ones that the simplifier leaves as they are.
    """
    rules = [(FloorMod, _remainder), (FloorDiv, _quotient)]
    return tvm_ffi.structural_map(node, rules, order="post")


def _remainder(node: FloorMod) -> Any:
    size = _negated(node.b)
    if size is None:
        return node
    rest = tirx.floormod(node.a, size)
    zero = tirx.const(0, str(rest.ty.dtype))
    return tirx.Select(rest == zero, zero, rest - size)


def _quotient(node: FloorDiv) -> Any:
    size = _negated(node.b)
    if size is None:
        return node
    return tirx.const(0, str(size.ty.dtype)) - tirx.floordiv(node.a + (size - 1), size)


def _negated(divisor: Any) -> IntImm | None:
    """Minus ``divisor`` where that is a negative number."""
    if not isinstance(divisor, IntImm) or int(divisor.value) >= 0:
        return None
    return IntImm(str(divisor.ty.dtype), -int(divisor.value))


@tirx.transform.prim_func_pass(opt_level=0, name="MakeDivisorsPositive")
def make_divisors_positive(func: tirx.PrimFunc, _mod: Any, _ctx: Any) -> tirx.PrimFunc:
    """:func:`without_negative_divisors` as a pass."""
    return func.with_body(without_negative_divisors(func.body))
