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


def with_positive_terms(node: T) -> T:
    """An expression or statement that computes the same, whose remainders and quotients by a number
    are of sums in which no term is negative, where that can be had.

    For code that goes through TVM's simplifiers of its own, as that of schedule rules does: given
    no reason, they make no negative divisor.
    """
    rules = [(FloorMod, _positive_remainder), (FloorDiv, _positive_quotient)]
    return tvm_ffi.structural_map(node, rules, order="post")


def _positive_remainder(node: FloorMod) -> Any:
    size = _number(node.b)
    if not size:
        return node
    parts = terms(node.a)
    nested = any(_left_the_same(term, size) for _, term in parts)
    if size > 0 and not nested and all(factor >= 0 for factor, _ in parts):
        return node
    parts = _unfolded(parts, size)
    sign = 1 if size > 0 else -1
    rest = _sum([(sign * factor % abs(size), term) for factor, term in parts], node)
    return tirx.floormod(rest, _const(abs(size), node)) * _const(sign, node)


def _unfolded(parts: list[tuple[int, Any]], size: int) -> list[tuple[int, Any]]:
    """Terms of a sum whose remainder by ``size`` is taken, inner remainders that this leaves the
    same written as what they are of: ``(x % n + y) % n`` is ``(x + y) % n``.

    TVM's map of the indices of a buffer takes such a remainder for a shift of the row beside it.
    """
    found: list[tuple[int, Any]] = []
    for factor, term in parts:
        if _left_the_same(term, size):
            found += _unfolded(terms(term.a, factor), size)
        else:
            found.append((factor, term))
    return found


def _left_the_same(term: Any, size: int) -> bool:
    """Whether a term is a remainder that one by ``size`` does not need."""
    inner = _number(term.b) if isinstance(term, FloorMod) else None
    return inner is not None and inner != 0 and inner % size == 0


def _positive_quotient(node: FloorDiv) -> Any:
    size = _number(node.b)
    if not size:
        return node
    sign = 1 if size > 0 else -1
    size, parts = abs(size), [(sign * factor, term) for factor, term in terms(node.a)]
    some = [factor for factor, term in parts if term is not None]
    if min(some, default=0) >= 0 or max(some) > 0:
        return node if sign > 0 else tirx.floordiv(_sum(parts, node), _const(size, node))
    number = sum(factor for factor, term in parts if term is None)
    over = -(-number // size)  # floor(a / n) = over - ceil((over * n - a) / n)
    up = [(-factor, term) for factor, term in parts if term is not None]
    rest = _sum([*up, (over * size - number + size - 1, None)], node)
    return _const(over, node) - tirx.floordiv(rest, _const(size, node))


def terms(expr: Any, factor: int = 1) -> list[tuple[int, Any]]:
    """A sum as factors of terms; a number is the factor of no term, ``None``."""
    if isinstance(expr, IntImm):
        return [(factor * int(expr.value), None)]
    if isinstance(expr, tirx.Add):
        return terms(expr.a, factor) + terms(expr.b, factor)
    if isinstance(expr, tirx.Sub):
        return terms(expr.a, factor) + terms(expr.b, -factor)
    if isinstance(expr, tirx.Mul):
        for one, other in ((expr.a, expr.b), (expr.b, expr.a)):
            if isinstance(one, IntImm):
                return terms(other, factor * int(one.value))
    return [(factor, expr)]


def _sum(parts: list[tuple[int, Any]], like: Any) -> Any:
    total = _const(0, like)
    for factor, term in parts:
        number = _const(factor, like)
        total = total + (number if term is None else term * number)
    return total


def _const(number: int, like: Any) -> Any:
    return tirx.const(number, str(like.ty.dtype))


def _number(expr: Any) -> int | None:
    return int(expr.value) if isinstance(expr, IntImm) else None


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
