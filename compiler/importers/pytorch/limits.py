"""Limits of open sizes that only a broadcast tells.

A table of 64 positions cut to ``min(s, 64)`` and added to ``s`` of something else works for sizes
up to 64. torch.export traces it without a limit: it takes the two for one, as in the example.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import fx

_NEAR = (-1, 0, 1)


def broadcast_limits(graph: fx.Graph) -> dict[str, int]:
    """torch's symbol -> the largest size for which operands go together."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        result = node.meta.get("val")
        if not isinstance(result, torch.Tensor) or not _pointwise(node.target):
            continue
        for operand in node.all_input_nodes:
            value = operand.meta.get("val")
            if isinstance(value, torch.Tensor):
                for symbol, limit in _limits(value.shape, result.shape):
                    found[symbol] = min(limit, found.get(symbol, limit))
    return found


def _pointwise(target: Any) -> bool:
    return torch.Tag.pointwise in getattr(target, "tags", ())


def _limits(shape: Any, result: Any) -> Iterator[tuple[str, int]]:
    for have, want in zip(reversed(shape), reversed(result), strict=False):
        if isinstance(have, torch.SymInt) and isinstance(want, torch.SymInt):
            size, symbol = have.node.expr, want.node.expr
            if symbol.is_symbol and size != symbol and size.free_symbols == {symbol}:
                limit = _same_up_to(size, symbol)
                if limit is not None:
                    yield str(symbol), limit


def _same_up_to(size: sympy.Expr, symbol: sympy.Symbol) -> int | None:
    """The number up to which ``size``, pieces of lines between its numbers, is ``symbol``."""

    def same(n: int) -> bool:
        return bool(size.xreplace({symbol: sympy.Integer(n)}) == n)

    bounds = sorted({abs(int(n)) for n in size.atoms(sympy.Integer)} - {0, 1})
    for bound in reversed(bounds):
        tried = {b + d for b in bounds for d in _NEAR if 1 <= b + d <= bound} | {1, bound}
        if all(map(same, tried)) and not same(bound + 1):
            return bound
    return None
