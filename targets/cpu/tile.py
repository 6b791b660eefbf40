"""One register tile as statements: clear, accumulate, store; rules are those of ``tiles``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.padding import Reach
from burnish.targets.cpu.stages import (
    Iter,
    is_heavy,
    loads,
    replace_loads,
    same_indices,
    simplified,
)
from burnish.targets.cpu.tiling import Plan

_UNROLLED_STEPS = 64
_SIDE_BY_SIDE = 2
"""Vectors that go through GELU or the like at once: a step waits for the one before it."""
_LINE = 16
At = dict[Var, Expr]
Element = Callable[[Expr, Expr], Expr]
Extra = Callable[[At], Stmt]


@dataclass(frozen=True)
class Tile:
    """Rows ``first`` to ``first + rows`` of column block ``block`` at the outer indices ``outer``.

    With ``limit``, rows from it on are read as the last and not stored. ``border`` is the first
    row of a tile some of whose terms do not exist (rule 8). ``stored`` columns are stored, in the
    last block ``tail`` where that is not 0.
    """

    plan: Plan
    outer: At
    first: Expr
    rows: int
    block: Expr
    stored: int
    tail: int = 0
    limit: Expr | None = None
    border: int | None = None

    @property
    def computed(self) -> int:
        return self.plan.width if self.plan.block is not None else self.stored

    @property
    def around(self) -> At:
        """The outer indices, and those of the first row."""
        return {**self.outer, **self.plan.at_row(self.first)}

    def accumulators(self) -> Var:
        return loops.local([self.rows, self.computed], str(self.plan.main.out.dtype), "acc")

    def over_rows(self, body: Callable[[Expr], Stmt], live: Sequence[int] | None = None) -> Stmt:
        if live is None or len(live) == self.rows:
            return loops.unroll(self.rows, body, name="r")
        return loops.seq(*[body(loops.const(r)) for r in live])

    def over_tile(
        self,
        columns: int,
        body: Callable[[Expr, Expr], Stmt],
        live: Sequence[int] | None = None,
    ) -> Stmt:
        lanes = self.plan.lanes
        return self.over_rows(lambda r: loops.vectors(columns, lanes, lambda c: body(r, c)), live)

    def cleared(self, buffer: Var) -> Stmt:
        init = self.plan.main.init
        return self.over_tile(self.computed, lambda r, c: loops.store(buffer, init, [r, c]))

    def placed(self, r: Expr, at: At) -> At:
        """Values of every axis but the column, in row ``r`` at the reduced indices ``at``."""
        index = self.first + r
        if self.limit is not None:
            index = tirx.min(index, self.limit - 1)
        mapping = {**self.outer, **at, **self.plan.at_row(index)}
        if self.plan.block is not None:
            mapping[self.plan.block.var] = self.block
        return mapping

    def term(self, acc: Var, r: Expr, c: Expr, at: At) -> Stmt:
        """``acc[r, c]`` joined by the term at the reduced indices ``at``."""
        plan, main = self.plan, self.plan.main
        mapping = self.placed(r, at)
        mapping[plan.column.var] = c if plan.block is not None else self.block * plan.width + c
        assert main.combine is not None
        value = loops.substitute(main.value, mapping)
        return loops.store(acc, main.combine(acc[r, c], value), [r, c])

    def terms(self, acc: Var, at: At, live: Sequence[int], count: int | None = None) -> Stmt:
        """The terms of the whole tile at ``at``; of a word, the first ``count`` or all."""
        dot = self.plan.dot
        if dot is None:
            return self.over_tile(self.computed, lambda r, c: self.term(acc, r, c, at), live)
        group = count or dot.instruction.group
        return self.over_rows(
            lambda r: dot.row(acc, r, self.computed, self.placed(r, at), group), live
        )

    def checked(self) -> dict[Var, Reach]:
        """Guards to be kept along reduced axes."""
        return {
            reach.k: reach
            for reach in self.plan.reaches
            if reach.k is not None and (self.border is not None or reach.rows is None)
        }

    def live(self) -> list[int]:
        """Rows whose terms exist, as far as guards without a reduced axis tell."""
        rows = list(range(self.rows))
        for reach in self.plan.reaches:
            if reach.k is None and reach.rows is not None and self.border is not None:
                rows = [r for r in rows if reach.covers(self.border + r, 0)]
        return rows

    def outside(self, body: Stmt) -> Stmt:
        """``body`` where guards without a reduced axis, of axes outside the tile, hold."""
        conditions = [
            reach.holds(self.around)
            for reach in self.plan.reaches
            if reach.k is None and reach.rows is None
        ]
        return loops.branch(tirx.all(*conditions), body) if conditions else body

    def whole(self, acc: Var, extra: Extra | None = None) -> Stmt:
        """All terms, joined to ``acc``; short sums are unrolled (rule 7)."""
        main = self.plan.main
        total = loops.as_int(loops.product([it.extent for it in main.reduce]))
        most = min(_UNROLLED_STEPS, _UNROLLED_STEPS * 2 // self.rows)
        unroll = self.plan.block is None and total is not None and total <= most
        checked, live = self.checked(), self.live()
        body = self.steps(acc, list(main.reduce), {}, live, checked, unroll, extra)
        if unroll and self.border is None and checked:
            inside = [
                checked[it.var].holds({**self.around, it.var: loops.const(k)})
                for it in main.reduce
                if it.var in checked
                for k in (0, (it.size or 1) - 1)
            ]
            free = self.steps(acc, list(main.reduce), {}, live, {}, unroll, extra)
            body = loops.branch(tirx.all(*inside), free, body)
        return self.outside(body)

    def steps(
        self,
        acc: Var,
        left: Sequence[Iter],
        at: At,
        live: Sequence[int],
        checked: dict[Var, Reach],
        unrolled: bool = False,
        extra: Extra | None = None,
    ) -> Stmt:
        """The terms of the reduced axes ``left``; ``extra`` makes a statement for each step."""
        if not left:
            terms = self.terms(acc, at, live)
            return terms if extra is None else loops.seq(extra(at), terms)
        it, *others = left
        reach = checked.get(it.var)
        dot = self.plan.dot
        if dot is not None and it is dot.element and dot.rest:
            last = loops.const((it.size or 1) - 1)
            full = loops.serial(
                (it.size or 1) - 1, lambda k: self.terms(acc, {**at, it.var: k}, live), "k"
            )
            return loops.seq(full, self.terms(acc, {**at, it.var: last}, live, dot.rest))

        def step(k: Expr, rows: Sequence[int] = live) -> Stmt:
            return self.steps(acc, others, {**at, it.var: k}, rows, checked, unrolled, extra)

        if reach is None:
            short = it.size is not None and (unrolled or str(it.var.name).startswith("unroll"))
            extent = it.size if it.size is not None else it.extent
            return (
                loops.unroll(it.size or 0, step, "k") if short else loops.serial(extent, step, "k")
            )
        if reach.rows is None and not unrolled:
            first, last = reach.span(self.around, it.size or 0)
            return loops.serial(simplified(last - first), lambda k: step(first + k), name="k")
        parts = []
        for k in range(it.size or 0):
            if reach.rows is None:
                holds = reach.holds({**self.around, **at, it.var: loops.const(k)})
                parts.append(loops.branch(holds, step(loops.const(k))))
                continue
            inside = self.covered(reach, k, live)
            if inside:
                parts.append(step(loops.const(k), inside))
        return loops.seq(*parts) if parts else tirx.Evaluate(loops.const(0))

    def covered(self, reach: Reach, k: int, live: Sequence[int]) -> list[int]:
        """Rows of ``live`` whose term ``k`` exists."""
        assert self.border is not None
        return [r for r in live if reach.covers(self.border + r, k)]

    def asked(self) -> list[Stmt]:
        """Lines that the store will read, asked for before the sum (rule 9)."""
        final = self.plan.final
        if final is None or self.plan.block is None:
            return []
        mine = [it.var for it in final.spatial]
        others = [
            load.source
            for load in loads(final.value)
            if not load.source.same_as(self.plan.main.out)
            and same_indices(load.indices, mine)
            and same_indices(load.source.shape, final.out.shape)
        ]
        lines = range(0, self.stored, _LINE)

        def line(r: Expr) -> Stmt:
            parts = []
            for start in lines:
                place = list(self._final_at(r, loops.const(start)).values())
                parts += [loops.prefetch(other, place, near=True) for other in others]
            return loops.seq(*parts)

        return [self.over_rows(line)] if others else []

    def write(self, result: Element) -> Stmt:
        """Store ``result(r, c)``, with what follows it in the kernel."""
        if self.tail:
            return loops.branch(
                self.block < self.plan.blocks - 1,
                self._out_rows(result, self.stored),
                self._out_rows(result, self.tail),
            )
        return self._out_rows(result, self.stored)

    def _out_rows(self, result: Element, columns: int) -> Stmt:
        def store(r: Expr, c: Expr) -> Stmt:
            return self._store(result, r, c)

        def row(r: Expr) -> Stmt:
            if self.plan.final is None or not is_heavy(self.plan.final.value):
                return loops.vectors(columns, self.plan.lanes, lambda c: store(r, c))
            sums = loops.local([columns], str(self.plan.main.out.dtype), "sums")
            return loops.seq(
                loops.allocate(sums),
                loops.vectors(
                    columns, self.plan.lanes, lambda c: loops.store(sums, result(r, c), [c])
                ),
                loops.vectors(
                    columns,
                    self.plan.lanes * _SIDE_BY_SIDE,
                    lambda c: self._store(lambda _r, c: sums[c], r, c),
                ),
            )

        limit = self.limit
        if limit is None:
            return self.over_rows(row)
        return self.over_rows(lambda r: loops.branch(self.first + r < limit, row(r)))

    def _final_at(self, r: Expr, c: Expr) -> At:
        """The indices of the final stage, in order, for one element of the tile."""
        plan, final = self.plan, self.plan.final
        assert final is not None
        mapping = {**self.outer, **plan.at_row(self.first + r)}
        axes = [it for it in plan.main.spatial if it is not plan.column and it is not plan.block]
        at = {
            theirs.var: mapping[mine.var] for mine, theirs in zip(axes, final.spatial, strict=False)
        }
        at[final.spatial[-1].var] = self.block * plan.width + c
        return at

    def _store(self, result: Element, r: Expr, c: Expr) -> Stmt:
        plan, main, final = self.plan, self.plan.main, self.plan.final
        if final is None:
            column = self.block * plan.width + c
            mapping = {**self.outer, **plan.at_row(self.first + r), plan.column.var: column}
            return loops.store(
                main.out, result(r, c), [loops.substitute(i, mapping) for i in main.indices]
            )
        at = self._final_at(r, c)
        value = replace_loads(final.value, main.out, lambda _indices: result(r, c))
        return loops.store(
            final.out,
            loops.substitute(value, at),
            [loops.substitute(i, at) for i in final.indices],
        )
