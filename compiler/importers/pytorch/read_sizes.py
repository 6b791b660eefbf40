"""Sizes that torch thinks are read from tensors, where the tensors are arithmetic of sizes.

``torch.tensor(x.size(1))`` gives a scalar whose ``.item()`` torch.export takes for a number known
at run time only (``u0``), and so is the length of a slice that it bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import fx
from torch.utils._sympy.functions import Max, Min

_aten = torch.ops.aten
_ARITHMETIC: dict[Any, Callable[[Any, Any], Any]] = {
    _aten.add.Tensor: lambda a, b: a + b,
    _aten.sub.Tensor: lambda a, b: a - b,
    _aten.mul.Tensor: lambda a, b: a * b,
    _aten.maximum.default: Max,
    _aten.minimum.default: Min,
}
_SAME = {_aten.clone.default, _aten._to_copy.default, _aten.alias.default, _aten.detach.default}
_END = 2**62


def read_sizes(graph: fx.Graph) -> dict[str, sympy.Expr]:
    """torch's symbol -> what it is, in symbols that are sizes of inputs."""
    scalars: dict[fx.Node, sympy.Expr] = {}
    found: dict[str, sympy.Expr] = {}

    def number(value: Any) -> sympy.Expr | None:
        """A number, or the number in a scalar tensor, by symbols that are known."""
        if isinstance(value, fx.Node):
            if value in scalars:
                return scalars[value]
            value = value.meta.get("val")
        if isinstance(value, torch.SymInt):
            expr = value.node.expr.xreplace({symbols[n]: e for n, e in found.items()})
            return None if any(from_tensor(s) for s in expr.free_symbols) else expr
        if isinstance(value, int) and not isinstance(value, bool):
            return sympy.Integer(value)
        return None

    def define(size: Any, expr: sympy.Expr | None) -> None:
        symbol = size.node.expr if isinstance(size, torch.SymInt) else None
        if expr is not None and symbol is not None and symbol.is_symbol and from_tensor(symbol):
            found.setdefault(str(symbol), expr)

    symbols = _symbols(graph)
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op != "call_function":
            continue
        if node.target is _aten._local_scalar_dense.default:
            define(value, number(node.args[0]))
        elif isinstance(value, torch.Tensor) and not value.ndim and _integer(value):
            scalar = _scalar(node, number)
            if scalar is not None:
                scalars[node] = scalar
        elif node.target is _aten.slice.Tensor:
            axis = (node.args[1] if len(node.args) > 1 else 0) % value.ndim
            define(value.shape[axis], _length(node, axis, number))
    return found


def _scalar(node: fx.Node, number: Callable[[Any], Any]) -> sympy.Expr | None:
    if node.target in (_aten.scalar_tensor.default, *_SAME):
        return number(node.args[0])
    make = _ARITHMETIC.get(node.target)
    if make is None or node.kwargs:
        return None
    parts = [number(argument) for argument in node.args]
    return make(*parts) if len(parts) == 2 and None not in parts else None


def _length(node: fx.Node, axis: int, number: Callable[[Any], Any]) -> sympy.Expr | None:
    """How long a slice is: of step 1, and bounds that count from the start."""
    start, end, step = [*node.args[2:], *[None] * 3][:3]
    whole = number(node.args[0].meta["val"].shape[axis])  # type: ignore[union-attr]
    first = number(0 if start is None else start)
    last = whole if end is None else number(end)
    if None in (whole, first, last) or step not in (None, 1):
        return None
    if first.is_number and first < 0:
        return None
    last = whole if last.is_number and last > _END else Min(last, whole)
    return Max(last - Min(first, whole), 0)


def _symbols(graph: fx.Graph) -> dict[str, sympy.Symbol]:
    found = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        for size in sizes:
            if isinstance(size, torch.SymInt):
                found.update({str(s): s for s in size.node.expr.free_symbols})
    return found


def from_tensor(symbol: sympy.Symbol | str) -> bool:
    """Whether torch reads the number from a tensor; else it is the size of an input."""
    return str(symbol).lstrip("z").startswith("u")


def _integer(value: torch.Tensor) -> bool:
    return not value.is_floating_point() and value.dtype is not torch.bool
