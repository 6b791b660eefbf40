"""The sums of a work item: where they are, what is added to them, and how they meet (rule 4)."""

from __future__ import annotations

from functools import partial
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.gpu.matvec.plan import Plan
from burnish.targets.gpu.readings import Reading


class Sums:
    """``count`` sums in ``dtype``, of ``rows`` rows; those of a work group ``meet``.

    Each sum has a buffer of its own to meet in: TVM would put barriers between steps on one.
    """

    def __init__(self, count: int, rows: int, dtype: str, plan: Plan) -> None:
        self.rows, self.dtype = rows, dtype
        self.own = loops.local([count], dtype, "sums")
        shape = [plan.down, plan.across]
        self.meet = [
            tirx.decl_buffer(shape, dtype, f"meet{i}", scope="shared") for i in range(count)
        ]

    def start(self) -> list[Stmt]:
        """Memory, and zeros."""
        zero = tirx.const(0, self.dtype)
        clear = loops.unroll(len(self.meet), lambda i: loops.store(self.own, zero, [i]))
        return [*map(loops.allocate, [*self.meet, self.own]), clear]

    def add(self, how: Reading, batch: Any, places: list[tuple[Any, Any]]) -> Stmt:
        """Add the products of one read at each of ``places``, which are depth and column."""
        ats = [
            {how.at["batch"]: batch, how.at["depth"]: depth, how.at["columns"]: column}
            for depth, column in places
        ]
        parts: list[Stmt] = []
        raw = []
        for number, at in enumerate(ats):
            reads, buffers = how.right.read(f"w{number}_", at)
            parts += reads
            raw.append(buffers)
        each, piece = len(ats), how.piece
        weights = loops.local([each * piece], self.dtype, "weights")
        parts.append(loops.allocate(weights))

        def decoded(r: int, part: Any, v: Any) -> Stmt:
            value = how.right.at(part * piece + v, raw[r], ats[r])
            return loops.store(weights, value, [v + r * piece])

        def some(part: Any) -> Stmt:
            at = {**ats[0], how.at["part"]: part}
            return loops.seq(
                *(loops.unroll(piece, partial(decoded, r, part)) for r in range(each)),
                loops.unroll(self.rows, lambda m: self._row(how, at, m, weights)),
            )

        return loops.seq(*parts, loops.unroll(how.lanes // piece, some))

    def _row(self, how: Reading, at: dict[Var, Any], m: Any, weights: Var) -> Stmt:
        """Add to the sums of row ``m`` what it has with the ``weights`` decoded."""
        at = {**at, how.at["rows"]: m}
        reads, buffers = how.left.read("x", at)
        piece, sums = how.piece, self.own
        each = int(weights.shape[0]) // piece
        values = loops.local([how.left.lanes], self.dtype, "values")

        def given(v: Any) -> Stmt:
            return loops.store(values, how.left.at(v, buffers, at), [v])

        def add(r: int, v: Any) -> Stmt:
            if how.axis == "depth":
                index, value = m * each + r, values[(v,)]
            else:
                index = m * how.lanes + at[how.at["part"]] * piece + v
                value = values[(loops.const(0),)]
            return loops.store(sums, sums[(index,)] + value * weights[(v + r * piece,)], [index])

        return loops.seq(
            *reads,
            loops.allocate(values),
            loops.unroll(how.left.lanes, given),
            *(loops.unroll(piece, partial(add, r)) for r in range(each)),
        )

    def join(self, own: tuple[Any, Any], axis: int) -> list[Stmt]:
        """Sums of all items along an axis of (down, across), found at its start."""
        parts = [
            loops.store(buffer, self.own[(loops.const(i),)], own)
            for i, buffer in enumerate(self.meet)
        ]
        size = int(self.meet[0].shape[axis])
        while size > 1:
            size //= 2
            other = tuple(at + size if i == axis else at for i, at in enumerate(own))
            adds = [loops.store(one, one[own] + one[other], own) for one in self.meet]
            parts.append(loops.branch(own[axis] < size, loops.seq(*adds)))
        return parts

    def joined(self, index: int, own: tuple[Any, Any], axis: int) -> Expr:
        """Where :meth:`join` leaves the whole of a sum."""
        zero = loops.const(0)
        return self.meet[index][tuple(zero if i == axis else at for i, at in enumerate(own))]


__all__ = ["Sums"]
