"""Symbolic sizes: torch's symbols -> TVM variables under the user's names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from tvm import relax, tirx
from tvm.sym import Analyzer, ConstIntBound

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.pytorch.chunks import in_chunks

_INT64 = "int64"
_UNBACKED = re.compile(r"z?u\d+")  # torch's names of numbers that it reads from tensors


class SymbolTable:
    """Sizes of one exported program.

    ``names`` maps torch's symbol (``s23``) to the user's name; others keep torch's.
    ``ranges`` maps torch's symbol to its limits. ``read`` maps one that torch reads from a tensor
    to the arithmetic of others that it is.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        ranges: Mapping[str, tuple[int, int | None]],
        read: Mapping[str, sympy.Expr],
    ) -> None:
        self.names = dict(names)
        self.read = dict(read)
        self.ranges = dict(ranges)
        self.variables: dict[str, tirx.Var] = {}
        self.sizes: dict[Any, Any] = {}
        self.analyzer = Analyzer()

    def name(self, symbol: str) -> str:
        """The user's name for one of torch's symbols."""
        return self.names.get(symbol, symbol)

    def text(self, size: int | torch.SymInt) -> int | str:
        """A size as the signature writes it."""
        expr = _expression(size)
        if expr is None:
            return int(size)
        renamed = expr.subs({s: sympy.Symbol(self.name(str(s))) for s in expr.free_symbols})
        return str(renamed)

    def size(self, size: int | torch.SymInt) -> Any:
        """A size as Relax writes it: an int, or an expression of int64 variables."""
        expr = _expression(size)
        if expr is None:
            return int(size)
        # One object for one size: parts of TVM compare sizes by identity.
        if expr not in self.sizes:
            self.sizes[expr] = self.analyzer.simplify(self._convert(in_chunks(expr)))
        return self.sizes[expr]

    def expression(self, expr: sympy.Expr) -> Any:
        """What :meth:`size` gives for an expression of torch's symbols."""
        return self.analyzer.simplify(self._convert(in_chunks(expr)))

    def bounds(self) -> dict[str, dict[str, int]]:
        """Function attributes with the limits of each symbol, as TVM's planners read them."""
        limits = self.limits()
        upper = {name: high for name, (_, high) in limits.items() if high is not None}
        attrs = {}
        if limits:
            attrs["tir_var_lower_bound"] = {name: low for name, (low, _) in limits.items()}
        if upper:
            attrs["tir_var_upper_bound"] = upper
        return attrs

    def limits(self) -> dict[str, tuple[int, int | None]]:
        """User's name -> smallest and largest size; empty tensors are outside the range."""
        return {
            self.name(symbol): (max(low, 1), high) for symbol, (low, high) in self.ranges.items()
        }

    def same_shape(self, expr: relax.Expr, shape: Sequence[Any]) -> bool:
        """Whether an expression's inferred shape is provably ``shape``."""
        got = expr.ty.shape
        if not isinstance(got, relax.ShapeExpr) or len(got) != len(shape):
            return False
        return all(self.equal(a, b) for a, b in zip(got, shape, strict=True))

    def contradicts(self, expr: relax.Expr, shape: Sequence[Any]) -> bool:
        """Whether an expression's inferred shape cannot be ``shape``."""
        got = expr.ty.shape
        if not isinstance(got, relax.ShapeExpr):
            return expr.ty.ndim not in (-1, len(shape))
        if len(got) != len(shape):
            return True
        return any(
            _is_number(a) and _is_number(b) and int(a) != int(b)
            for a, b in zip(got, shape, strict=True)
        )

    def refuse_unlike(self, left: relax.Expr, right: relax.Expr) -> None:
        """``ValueError`` for a number and an open size that cannot be known to be one.

        torch.export may take them for one because they are in the example.
        """
        shapes = [list(value.ty.shape or ()) for value in (left, right)]
        for a, b in zip(*(reversed(shape) for shape in shapes), strict=False):
            if _is_number(a) == _is_number(b) or self.equal(a, b):
                continue
            number, size = (a, b) if _is_number(a) else (b, a)
            if int(number) != 1 and not self.analyzer.can_prove_equal(size, 1):
                raise ValueError(
                    f"it joins a size of {int(number)} with one of {_plain(size)}: torch.export "
                    "took them for one, which they are in the example alone; keep this size fixed"
                )

    def equal(self, a: Any, b: Any) -> bool:
        """Whether two sizes are provably one."""
        if _is_number(a) and _is_number(b):
            return int(a) == int(b)
        return bool(self.analyzer.can_prove_equal(a, b))

    def _variable(self, symbol: str) -> tirx.Var:
        """The variable of one of torch's symbols, its range known to the analyzer."""
        name = self.name(symbol)
        if is_unbacked(symbol):
            raise ImportModelError(
                f"a size ({symbol}) depends on the values of a tensor, not on the sizes of the "
                "inputs; give such a number as a constant, or keep the size open with a mask"
            )
        if name not in self.variables:
            var = self.variables[name] = tirx.Var(name, _INT64)
            low, high = self.limits().get(name, (None, None))
            if low is not None:
                self.analyzer.update(
                    var, ConstIntBound(low, ConstIntBound.POS_INF if high is None else high)
                )
        return self.variables[name]

    def _convert(self, expr: sympy.Expr) -> Any:
        if isinstance(expr, sympy.Integer):
            return tirx.IntImm(_INT64, int(expr))
        if isinstance(expr, sympy.Symbol):
            known = self.read.get(str(expr))
            return self._variable(str(expr)) if known is None else self._convert(known)
        parts = [self._convert(part) for part in expr.args]
        kind = type(expr).__name__
        if isinstance(expr, (sympy.Add, sympy.Mul)):
            total = parts[0]
            for part in parts[1:]:
                total = total + part if isinstance(expr, sympy.Add) else total * part
            return total
        if kind in ("FloorDiv", "CleanDiv"):
            return tirx.floordiv(parts[0], parts[1])
        if kind in ("Mod", "PythonMod"):
            return tirx.floormod(parts[0], parts[1])
        if kind in ("Min", "Max"):
            pick = tirx.min if kind == "Min" else tirx.max
            total = parts[0]
            for part in parts[1:]:
                total = pick(total, part)
            # Within the ranges: ``min(s, 64)`` is ``s`` where s is at most 64.
            return self.analyzer.simplify(total)
        if isinstance(expr, sympy.Pow) and isinstance(expr.exp, sympy.Integer) and expr.exp > 0:
            total = parts[0]
            for _ in range(int(expr.exp) - 1):
                total = total * parts[0]
            return total
        raise ImportModelError(f"the size {expr} has no translation ({kind})")


def is_unbacked(symbol: str) -> bool:
    """Whether torch reads the number from a tensor; else it is the size of an input."""
    return _UNBACKED.fullmatch(symbol) is not None


def _expression(size: int | torch.SymInt) -> sympy.Expr | None:
    if not isinstance(size, torch.SymInt):
        return None
    expr = size.node.expr
    return None if expr.is_number else expr


def _plain(size: Any) -> str:
    return re.sub(r"T\.int64\((-?\d+)\)", r"\1", str(size))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, tirx.IntImm))
