"""What a block of rows keeps meanwhile, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.attention.plan import Plan


@dataclass(frozen=True)
class Scratch:
    """What a block of rows keeps meanwhile; one after the other may use the same."""

    rows: int
    queries: Var
    scores: Var
    mixed: Var
    top: Var
    total: Var
    factor: Var

    def allocated(self, body: Stmt) -> Stmt:
        kept = (self.queries, self.scores, self.mixed, self.top, self.total, self.factor)
        return loops.seq(*[loops.allocate(buffer) for buffer in kept], body)


def scratch(plan: Plan, rows: int) -> Scratch:
    return Scratch(
        rows,
        loops.workspace([rows, plan.depth], "float32", "queries"),
        loops.workspace([rows, plan.keys], "float32", "scores"),
        loops.workspace([rows, plan.values], "float32", "mixed"),
        loops.local([rows], "float32", "top"),
        loops.local([rows, plan.lanes], "float32", "total"),
        loops.local([rows], "float32", "factor"),
    )


@dataclass(frozen=True)
class Rows:
    """Where a block stands: key head, first row and how many."""

    plan: Plan
    b: Expr
    kv: Expr
    first: Expr
    count: Any
    scratch: Scratch


def f32(value: float) -> Expr:
    return tirx.const(value, "float32")


__all__ = ["Rows", "Scratch", "f32", "scratch"]
