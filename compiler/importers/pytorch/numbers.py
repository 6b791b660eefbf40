"""Numbers of a program as scalar tensors: expressions of sizes, and of what tensors hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sympy  # type: ignore[import-untyped]
import torch
from tvm import relax

from burnish.compiler.importers.pytorch.symbols import is_unbacked

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.translator import Translator

op = relax.op

_COMPARED: dict[str, Callable[..., relax.Expr]] = {
    "Equality": op.equal,
    "Unequality": op.not_equal,
    "StrictLessThan": op.less,
    "LessThan": op.less_equal,
    "StrictGreaterThan": op.greater,
    "GreaterThan": op.greater_equal,
}
_FOLDED: dict[str, Callable[..., relax.Expr]] = {
    "Add": op.add,
    "Mul": op.multiply,
    "Min": op.minimum,
    "Max": op.maximum,
    "And": op.logical_and,
    "Or": op.logical_or,
}
_PAIRS: dict[str, Callable[..., relax.Expr]] = {
    **_COMPARED,
    "FloorDiv": op.floor_divide,
    "CleanDiv": op.floor_divide,
    "PythonMod": op.floor_mod,
    "Mod": op.floor_mod,
}


def is_known(value: Any, t: Translator) -> bool:
    """Whether a number reads tensors that are known here (``numbers``), not sizes alone."""
    unbacked = {str(s) for s in value.node.expr.free_symbols if is_unbacked(str(s))}
    return bool(unbacked) and unbacked <= set(t.numbers)


def number(value: torch.SymInt | torch.SymBool | int, t: Translator) -> relax.Expr:
    """A number as a scalar: int64, or bool for a comparison."""
    if isinstance(value, bool):
        return relax.const(value, "bool")
    if isinstance(value, int):
        return relax.const(value, "int64")
    return _tensor(value.node.expr, t)


def remember(value: Any, at: relax.Expr, t: Translator) -> None:
    """Remember the scalar that holds a number which torch knows by a symbol alone."""
    expr = value.node.expr if isinstance(value, torch.SymInt) else None
    if expr is not None and expr.is_symbol and is_unbacked(str(expr)):
        t.numbers[str(expr)] = at


def _tensor(expr: sympy.Basic, t: Translator) -> relax.Expr:
    if expr in (sympy.true, sympy.false):
        return relax.const(expr is sympy.true, "bool")
    if isinstance(expr, sympy.Integer):
        return relax.const(int(expr), "int64")
    if str(expr) in t.numbers and expr.is_symbol:
        return t.numbers[str(expr)]
    kind = type(expr).__name__
    if isinstance(expr, sympy.Symbol):
        return t._operand(t.symbols.expression(expr), "int64")
    parts = [_tensor(part, t) for part in expr.args]
    if kind in _FOLDED:
        total = parts[0]
        for part in parts[1:]:
            total = t.emit(_FOLDED[kind](total, part))
        return total
    if kind in _PAIRS and len(parts) == 2:
        return t.emit(_PAIRS[kind](*parts))
    if kind == "Not":
        return t.emit(op.logical_not(parts[0]))
    if isinstance(expr, sympy.Pow) and isinstance(expr.exp, sympy.Integer) and expr.exp > 0:
        total = parts[0]
        for _ in range(int(expr.exp) - 1):
            total = t.emit(op.multiply(total, parts[0]))
        return total
    raise ValueError(f"the number {expr} has no translation ({kind})")
