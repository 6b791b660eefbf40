"""Winograd's transforms as straight-line code on vectors: one axis, one column of values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.winograd import Winograd, polynomial

Value: TypeAlias = Callable[[Any], Expr]
"""One vector, as a function of the lane."""


class Vectors:
    """Straight-line code on vectors of ``lanes``, as it is written."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._statements: list[Stmt] = []

    def add(self, statement: Stmt) -> None:
        self._statements.append(statement)

    def keep(self, value: Value) -> Value:
        """``value`` computed once, into a register."""
        buffer = loops.local([self.lanes], "float32", "v")
        self.add(loops.allocate(buffer))
        self.write(buffer, value, loops.const(0))
        return lambda v: buffer[v]

    def write(self, buffer: Var, value: Value, first: Expr) -> None:
        """``buffer[first:first + lanes] = value``."""
        self.add(loops.vector(self.lanes, lambda v: loops.store(buffer, value(v), [first + v])))

    def body(self) -> Stmt:
        return loops.seq(*self._statements)


def into(algorithm: Winograd, code: Vectors, d: Sequence[Value]) -> list[Value]:
    """``B^T d``: of ``n`` values ``n`` others, those of a pair from its even and odd half."""
    squares = [p * p for p in algorithm.pairs]
    every = polynomial(squares)
    found = [combined(every, d[0::2])]
    for p in algorithm.pairs:
        others = polynomial([s for s in squares if s != p * p])
        even = code.keep(combined(others, d[2::2]))
        odd = code.keep(combined(others, d[1:-1:2]))
        found += [combined([Fraction(1), sign * p], [even, odd]) for sign in (1, -1)]
    return [*found, combined(every, d[1::2])]


def out_of(algorithm: Winograd, code: Vectors, k: Sequence[Value]) -> list[Value]:
    """``A^T k``: of ``n`` values ``m`` others, from sums and differences of the pairs."""
    pairs = algorithm.pairs
    sides = [k[1 + 2 * index : 3 + 2 * index] for index in range(len(pairs))]
    even = [code.keep(combined([Fraction(1), Fraction(1)], side)) for side in sides]
    odd = [code.keep(combined([Fraction(1), Fraction(-1)], side)) for side in sides]
    found = []
    for i in range(algorithm.m):
        factors = [p**i for p in pairs]
        values = [*(odd if i % 2 else even)]
        if i == 0:
            factors, values = [Fraction(1), *factors], [k[0], *values]
        if i == algorithm.m - 1:
            factors, values = [*factors, Fraction(1)], [*values, k[-1]]
        found.append(combined(factors, values))
    return found


def combined(factors: Sequence[Fraction], values: Sequence[Value]) -> Value:
    """``sum of factor * value``, plain values first, so that the others are multiply-adds."""
    terms = sorted(zip(factors, values, strict=True), key=lambda term: abs(term[0]) != 1)

    def value(v: Any) -> Expr:
        total: Expr | None = None
        for factor, term in terms:
            if total is None:
                total = term(v) if factor == 1 else term(v) * _number(factor)
            elif abs(factor) == 1:
                total = total + term(v) if factor == 1 else total - term(v)
            else:
                total = total + term(v) * _number(factor)
        assert total is not None
        return total

    return value


def _number(value: Fraction) -> Expr:
    return tirx.const(float(value), "float32")
