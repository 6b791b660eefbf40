"""Rule 2: which thread sums what of a step's product, and the sums of the parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.gpu.launch import guarded, rolled

VECTOR = 4
_MOST_SPLITS = 8
_TERMS = 4
"""States of a part of a sum are a multiple of it."""


@dataclass(frozen=True)
class Product:
    """Sums over ``weights [P, K, G, NB]`` of some gates, for ``units`` columns."""

    weights: Var
    gates: range
    units: int
    threads: int

    @property
    def width(self) -> int:
        return int(self.weights.shape[3])

    @property
    def depth(self) -> int:
        return int(self.weights.shape[1])

    @property
    def each(self) -> int:
        """Threads for one panel."""
        return len(self.gates) * self.width // VECTOR

    @property
    def chunks(self) -> int:
        return -(-int(self.weights.shape[0]) // max(1, self.threads // self.each))

    @property
    def panels(self) -> int:
        """Of a chunk."""
        return -(-int(self.weights.shape[0]) // self.chunks)

    @property
    def part(self) -> int:
        """States of a part of a sum."""
        most = min(_MOST_SPLITS, self.threads // self.lanes)
        return -(-self.depth // (most * _TERMS)) * _TERMS

    @property
    def splits(self) -> int:
        return -(-self.depth // self.part)

    @property
    def lanes(self) -> int:
        """Threads for a chunk, a part."""
        return self.each * self.panels

    @property
    def used(self) -> int:
        """Threads for a chunk."""
        return self.lanes * self.splits

    @property
    def columns(self) -> int:
        """Units of a chunk."""
        return self.panels * self.width


@dataclass(frozen=True)
class Sums:
    """Sums of ``rows`` rows by ``threads`` threads, in ``dtype``; the parts meet in ``partial``.

    ``stored`` is the type of the weights.
    """

    rows: int
    threads: int
    dtype: str
    stored: str
    partial: Var

    def parts(
        self, product: Product, chunk: Expr, thread: Expr, source: Callable[[Expr, Expr], Expr]
    ) -> Stmt:
        """What a thread has of a chunk, to shared memory; ``source`` is a state of a row."""
        split, lane = loops.split_two(thread, product.lanes)
        p, q = loops.split_two(lane, product.each)
        gate, column = loops.split_two(q, product.width // VECTOR)
        sums = loops.local([self.rows * VECTOR], self.dtype, "sums")

        def over(body: Callable[[Any, Any], Stmt]) -> Stmt:
            lanes = loops.vector if self.stored == "float32" else loops.unroll
            return loops.unroll(self.rows, lambda r: lanes(VECTOR, lambda v: body(r, v), "v"), "r")

        def work(panel: Expr, g: Expr, at: Expr, start: Expr, split: Expr) -> Stmt:
            def term(k: Expr) -> Stmt:
                def add(r: Any, v: Any) -> Stmt:
                    weight = product.weights[panel, start + k, g, at + v]
                    weight = weight if self.stored == self.dtype else weight.astype(self.dtype)
                    place = r * VECTOR + v
                    value = sums[(place,)] + source(r, start + k) * weight
                    return loops.store(sums, value, [place])

                return over(add)

            whole = product.part * product.splits == product.depth

            def terms(block: Expr) -> Stmt:
                def one(u: Expr) -> Stmt:
                    k = block * _TERMS + u
                    return guarded([] if whole else [start + k < product.depth], term(k))

                return loops.unroll(_TERMS, one, "u")

            def give(r: Any, v: Any) -> Stmt:
                place = ((r * product.splits + split) * product.lanes + lane) * VECTOR + v
                return loops.store(self.partial, sums[(r * VECTOR + v,)], [place])

            zero = tirx.const(0, self.dtype)
            return loops.seq(
                loops.allocate(sums),
                over(lambda r, v: loops.store(sums, zero, [r * VECTOR + v])),
                rolled(product.part // _TERMS, terms, "k"),
                over(give),
            )

        body = loops.named(
            work,
            panel=chunk * product.panels + p,
            g=gate + product.gates.start,
            at=column * VECTOR,
            start=split * product.part,
            split=split,
        )
        panels = int(product.weights.shape[0])
        conditions = []
        if self.threads != product.used:
            conditions.append(split < product.splits)
        if panels % product.panels:
            conditions.append(chunk * product.panels + p < panels)
        return guarded(conditions, body)

    def total(self, product: Product, r: Expr, u: Expr, g: int) -> Expr:
        """The sum of gate ``g`` of unit ``u`` of a chunk: of its parts."""
        p, v = loops.split_two(u, product.width)
        at = (p * len(product.gates) + g) * product.width + v
        size = product.lanes * VECTOR
        total: Any = self.partial[(r * product.splits * size + at,)]
        for split in range(1, product.splits):
            total = total + self.partial[((r * product.splits + split) * size + at,)]
        return total


__all__ = ["VECTOR", "Product", "Sums"]
