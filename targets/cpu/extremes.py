"""Maxima and minima of floats that give NaN where an operand is NaN, as torch's do.

The processor's instruction gives its second operand where either is NaN, so a constant put first
costs nothing (ReLU, clip); two values cost two instructions more. TVM's own order loses NaN, and
its reductions start from the lowest finite number, where an empty or all-infinite one is infinite.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr, TensorLoad
from tvm.ir.prim import Max, Min

from burnish.targets.cpu.vector_parts import bind

_FLOATS = ("float16", "float32", "float64")


def is_number(value: Expr) -> Expr:
    """False for NaN only. A comparison of a value with itself TVM would simplify away."""
    return value >= tirx.const(float("-inf"), str(value.ty.dtype))


def maximum(node: Max) -> Expr:
    return _extreme(node, lambda a, b: a > b)


def minimum(node: Min) -> Expr:
    return _extreme(node, lambda a, b: a < b)


def _extreme(node: Max | Min, first: Callable[[Expr, Expr], Expr]) -> Expr:
    a, b = node.a, node.b
    if str(node.ty.dtype) not in _FLOATS:
        return node
    if _is_number(a) or _is_number(b):
        constant, value = (a, b) if _is_number(a) else (b, a)
        if isinstance(value, TensorLoad):
            return tirx.Select(first(constant, value), constant, value)
        return bind(value, lambda v: tirx.Select(first(constant, v), constant, v), "v")
    if isinstance(a, TensorLoad) and isinstance(b, TensorLoad):
        return _of_two(a, b, first)
    return bind(a, lambda x: bind(b, lambda y: _of_two(x, y, first), "y"), "x")


def _of_two(x: Expr, y: Expr, first: Callable[[Expr, Expr], Expr]) -> Expr:
    """A NaN in ``x`` is before nothing, so it stays; a reduction's chain is one step and a move."""
    return tirx.Select(is_number(y), tirx.Select(first(y, x), y, x), y)


def _is_number(value: Expr) -> bool:
    """A constant that is a number; a NaN must not win by its place."""
    number = getattr(value, "value", None)
    return isinstance(number, float) and number == number


def plain_maximum(a: Expr, b: Expr) -> Expr:
    """One instruction; a NaN may be lost."""
    return tirx.Select(a > b, a, b)


def limit(combined: Expr, dtype: str) -> Expr | None:
    """What a maximum or minimum of floats starts from; ``None`` for other combinations."""
    if dtype not in _FLOATS or not isinstance(combined, Max | Min):
        return None
    return tirx.const(float("-inf" if isinstance(combined, Max) else "inf"), dtype)
