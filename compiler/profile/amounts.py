"""Arithmetic on amounts: numbers as long as sizes are known, text of an expression beyond."""

from __future__ import annotations

from collections.abc import Iterable

from tvm import tirx
from tvm.ir import Expr, Var

from burnish.compiler.profile.kernel import Amount

_OPERATORS = {
    "Add": "+",
    "Sub": "-",
    "Mul": "*",
    "FloorDiv": "//",
    "FloorMod": "%",
    "Div": "//",
    "Mod": "%",
}


def amount(extent: int | Expr) -> Amount:
    """A size of the IR; ValueError where it is more than arithmetic of sizes."""
    if isinstance(extent, int):
        return extent
    if isinstance(extent, tirx.IntImm):
        return int(extent.value)
    if isinstance(extent, Var):
        return _name(extent.name)
    kind = type(extent).__name__
    if kind == "Cast":
        return amount(extent.value)
    if kind in ("Max", "Min"):
        return f"{kind.lower()}({amount(extent.a)}, {amount(extent.b)})"
    if kind in _OPERATORS:
        return f"({amount(extent.a)} {_OPERATORS[kind]} {amount(extent.b)})"
    raise ValueError(f"the size {extent} is not arithmetic of sizes")


def _name(name: str) -> str:
    return (
        name if name.isidentifier() else "size_" + "".join(c if c.isalnum() else "_" for c in name)
    )


def times(*factors: Amount) -> Amount:
    """The product."""
    number, texts = 1, []
    for factor in factors:
        if isinstance(factor, int):
            number *= factor
        else:
            texts.append(factor)
    if number == 0 or not texts:
        return number
    return " * ".join([*([str(number)] if number != 1 else []), *map(_grouped, texts)])


def plus(*terms: Amount) -> Amount:
    """The sum."""
    number = sum(term for term in terms if isinstance(term, int))
    texts = [term for term in terms if isinstance(term, str)]
    if not texts:
        return number
    return " + ".join([*texts, *([str(number)] if number else [])])


def least(a: Amount, b: Amount) -> Amount:
    """The smaller."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return a if a == b else f"min({a}, {b})"


def part(whole: Amount, taken: Amount, of: Amount) -> Amount:
    """``whole * taken / of``, rounded down."""
    if whole == 0 or taken == of:
        return whole
    if isinstance(whole, int) and isinstance(taken, int) and isinstance(of, int):
        return whole * taken // max(of, 1)
    return f"({times(whole, taken)}) // max({of}, 1)"


def product(extents: Iterable[int | Expr]) -> Amount:
    return times(*map(amount, extents))


def _grouped(text: str) -> str:
    return text if text.isidentifier() else f"({text})"
