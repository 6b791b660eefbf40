"""Scores of a row to powers under its largest so far; its maximum, sum and factor renewed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.attention.scratch import Rows, f32
from burnish.targets.cpu.softmax import LOWEST, power
from burnish.targets.cpu.vectors import Block

_ZERO = loops.const(0)


def online_softmax(here: Rows, r: Expr, start: Expr, inside: Any) -> Stmt:
    """Row ``r`` over the block of keys from ``start`` on, of which ``inside`` exist; in place."""
    plan, lanes = here.plan, here.plan.lanes
    row = here.first + r
    mine = inside
    if plan.causal:
        mine = tirx.max(tirx.min(plan.limit(row) - start, inside), 0)
    return loops.named(
        lambda row, mine: loops.named(
            lambda whole, rest, used: _Row(here, r, row, start, inside, whole, rest, used).body(),
            whole=loops.divide(mine, lanes)[0],
            rest=loops.divide(mine, lanes)[1],
            used=loops.divide(mine + (lanes - 1), lanes)[0],
        ),
        row=row,
        mine=mine,
    )


@dataclass(frozen=True)
class _Row:
    """Row ``r`` of a block, ``row`` of its head, which sees ``whole`` vectors of keys and ``rest``
    more, ``used`` vectors in all."""

    here: Rows
    r: Any
    row: Expr
    start: Expr
    inside: Any
    whole: Any
    rest: Any
    used: Any

    def body(self) -> Stmt:
        lanes = self.here.plan.lanes
        top = loops.local([lanes], "float32", "tops")
        return loops.seq(
            loops.allocate(top),
            loops.vector(lanes, lambda v: loops.store(top, f32(LOWEST), [v])),
            self._highest(top),
            self._renewed(top),
            loops.serial(self.used, self._raised, "c"),
            *self._cleared(),
        )

    def _highest(self, top: Var) -> Stmt:
        """The largest of each lane; scores with their bias, those past the last ``-inf``."""
        lanes, r, scores = self.here.plan.lanes, self.r, self.here.scratch.scores
        end = loops.times(self.whole, lanes)
        biased = self.here.plan.bias is not None

        def highest(x: Expr, v: Expr) -> Stmt:
            larger = loops.store(top, tirx.max(top[v], scores[r, x]), [v])
            return loops.seq(self._score(x), larger) if biased else larger

        def last(v: Expr) -> Stmt:
            hidden = tirx.Select(v < self.rest, scores[r, end + v], f32(float("-inf")))
            return loops.seq(
                loops.store(scores, hidden, [r, end + v]),
                loops.store(top, tirx.max(top[v], scores[r, end + v]), [v]),
            )

        whole = loops.serial(
            self.whole, lambda c: loops.vector(lanes, lambda v: highest(c * lanes + v, v)), "c"
        )
        biases = [loops.serial(self.rest, lambda x: self._score(end + x))] if biased else []
        partial = loops.seq(*biases, loops.vector(lanes, last))
        known = loops.as_int(self.rest)
        if known == 0:
            partial = tirx.Evaluate(_ZERO)
        elif known is None:
            partial = loops.branch(self.rest > 0, partial)
        return loops.seq(whole, partial)

    def _score(self, x: Expr) -> Stmt:
        """A score with its bias."""
        here, plan = self.here, self.here.plan
        assert plan.bias is not None
        position, head = plan.query(here.kv, self.row)
        index = [here.b, head, position, self.start + x]
        where = [
            _ZERO if loops.as_int(extent) == 1 else i
            for extent, i in zip(plan.bias.shape, index, strict=True)
        ]
        value = here.scratch.scores[self.r, x] + plan.bias[tuple(where)]
        return loops.store(here.scratch.scores, value, [self.r, x])

    def _renewed(self, top: Var) -> Stmt:
        """The row's maximum, the factor by which what was summed shrinks, and its sum so far."""
        plan, own, r = self.here.plan, self.here.scratch, self.r
        block = Block(plan.lanes)
        found = block.folded(block.load(top, [0]), tirx.max)
        new = block.name(tirx.max(found, own.top[r]))
        if not plan.single:
            block.put(own.factor, power(own.top[r] - new), [r])
        block.put(own.top, new, [r])
        if not plan.single:
            share = own.factor[r]
            before = loops.vector(
                plan.lanes, lambda v: loops.store(own.total, own.total[r, v] * share, [r, v])
            )
            block.statements.append(before)
        return block.done()

    def _raised(self, c: Expr) -> Stmt:
        """A vector of scores to powers, added to the sum."""
        own, r, lanes = self.here.scratch, self.r, self.here.plan.lanes

        def lane(v: Expr) -> Stmt:
            x = c * lanes + v
            return loops.seq(
                loops.store(own.scores, power(own.scores[r, x] - own.top[r]), [r, x]),
                loops.store(own.total, own.total[r, v] + own.scores[r, x], [r, v]),
            )

        return loops.vector(lanes, lane)

    def _cleared(self) -> list[Stmt]:
        """Powers of keys that the row does not see: a tile reads as many as its last row sees."""
        plan, scores, r = self.here.plan, self.here.scratch.scores, self.r
        if not plan.causal:
            return []
        lanes = plan.lanes
        all_used, _ = loops.divide(self.inside + (lanes - 1), lanes)
        return [
            loops.serial(
                tirx.max(all_used - self.used, 0),
                lambda c: loops.vector(
                    lanes, lambda v: loops.store(scores, f32(0), [r, (self.used + c) * lanes + v])
                ),
                "c",
            )
        ]


__all__ = ["online_softmax"]
