"""Sizes that are rounded up to whole chunks, written so that arithmetic sees it."""

from __future__ import annotations

import sympy  # type: ignore[import-untyped]
from torch.utils._sympy.functions import FloorDiv, Mod, PythonMod

_REMAINDERS = (Mod, PythonMod)


def in_chunks(expr: sympy.Expr) -> sympy.Expr:
    """``s + (8 - s % 8) % 8`` as ``(s + 7) // 8 * 8``, of which an eighth is a plain quotient."""
    if not expr.has(*_REMAINDERS):
        return expr
    return expr.replace(lambda part: isinstance(part, sympy.Add), _rounded)


def _rounded(whole: sympy.Expr) -> sympy.Expr:
    for term in whole.args:
        if isinstance(term, _REMAINDERS) and term.args[1].is_Integer:
            chunk, rest = term.args[1], whole - term
            if any(term.args[0] == chunk - kind(rest, chunk) for kind in _REMAINDERS):
                return chunk * FloorDiv(rest + chunk - 1, chunk)
    return whole
