"""The elements of a row that a thread has: read as vectors where they lie so, and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.sym import Analyzer
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.stages import loads, replace_load
from burnish.targets.gpu.launch import guarded
from burnish.targets.gpu.rows.flat import ZERO, moves, same, with_values
from burnish.targets.gpu.rows.plan import Plan

_SLOT, _LANE = Var("slot", "int64"), Var("in_vector", "int64")
Body = Callable[[Expr, Expr, Expr, Expr], Stmt]
"""Of an element's value, the turn, its place in a vector, and its place among those kept."""


@dataclass(frozen=True)
class _Register:
    """A register among those kept of the row, or of the vector alone."""

    buffer: Var
    often: bool

    def load(self) -> Expr:
        return self.buffer[(_SLOT if self.often else _LANE,)]


@dataclass(frozen=True)
class _Fetch:
    """A load, and the registers it goes to: of the whole row where it is read ``often``."""

    load: TensorLoad
    buffer: Var
    often: bool


class Elements:
    """Of the thread ``lane`` of a row."""

    def __init__(self, plan: Plan, lane: Expr) -> None:
        self.plan, self.lane = plan, lane
        self._kept: dict[Var, Expr] = {}
        self._read: list[tuple[TensorLoad, Var]] = []

    def place(self, turn: Expr, v: Expr) -> Expr:
        """In the row."""
        return (turn * self.plan.team.lanes + self.lane) * self.plan.vector + v

    def keep(self, out: Var, registers: Var) -> None:
        """From here on, elements of ``out`` are in ``registers``."""
        self._kept[out] = _Register(registers, True).load()

    def each(
        self, value: Expr, body: Body, after: Callable[[Expr], Stmt] | None = None
    ) -> list[Stmt]:
        """``body`` of each element's ``value``; ``after`` every turn."""
        plan = self.plan
        value, fetches = self._fetched(value)
        value = with_values(value, self._kept)

        def turn(i: Expr) -> Stmt:
            def one(v: Expr) -> Stmt:
                slot = i * plan.vector + v
                where = {plan.element: self.place(i, v), _SLOT: slot, _LANE: v}
                return body(loops.substitute(value, where), i, v, slot)

            parts = [self._fetch(fetch, i) for fetch in fetches]
            parts.append(loops.unroll(plan.vector, one, "v"))
            if after is not None:
                parts.append(after(i))
            known = loops.as_int(plan.length)
            whole = known is not None and known % (plan.team.lanes * plan.vector) == 0
            inside = loops.seq(*parts)
            return guarded([] if whole else [self.place(i, ZERO) < plan.length], inside)

        make = loops.unroll if plan.held else loops.serial
        return [*(loops.allocate(fetch.buffer) for fetch in fetches), make(plan.turns, turn, "i")]

    def _fetched(self, value: Expr) -> tuple[Expr, list[_Fetch]]:
        """``value`` of registers, and what has to be read into them first."""
        plan = self.plan
        fetches: list[_Fetch] = []
        for load in self._outside(value):
            found = next((buffer for old, buffer in self._read if same(old, load)), None)
            if found is not None:
                value = replace_load(value, load, _Register(found, True).load())
                continue
            often = any(same(load, other) for other in plan.shared_reads)
            if not often and not neighbours(plan, load):
                continue
            size = plan.kept if often else plan.vector
            buffer = loops.local([size], str(load.source.dtype), "read")
            fetches.append(_Fetch(load, buffer, often))
            value = replace_load(value, load, _Register(buffer, often).load())
            if often:
                self._read.append((load, buffer))
        return value, fetches

    def _outside(self, value: Expr) -> list[TensorLoad]:
        """Different loads from outside that move with the element."""
        found: list[TensorLoad] = []
        inside = [stage.out for stage in self.plan.stages if self.plan.held]
        for load in loads(value):
            if any(load.source.same_as(buffer) for buffer in inside):
                continue
            if not moves(load, self.plan.element) or load.source.scope() == "local":
                continue
            if not any(same(load, other) for other in found):
                found.append(load)
        return found

    def _fetch(self, fetch: _Fetch, turn: Expr) -> Stmt:
        """What a turn reads of outside, to registers."""
        plan = self.plan

        def one(v: Expr) -> Stmt:
            where = {plan.element: self.place(turn, v)}
            slot = turn * plan.vector + v if fetch.often else v
            return loops.store(fetch.buffer, loops.substitute(fetch.load, where), [slot])

        make = loops.vector if neighbours(plan, fetch.load) else loops.unroll
        return make(plan.vector, one, "v")


def neighbours(plan: Plan, load: TensorLoad) -> bool:
    """Whether four elements in a row from a multiple of four on lie so in memory, in line."""
    if plan.vector == 1 or tvm.DataType(str(load.source.dtype)).itemsize not in (2, 4):
        return False
    shape = list(load.source.shape)
    flat: Expr = ZERO
    for index, size in zip(load.indices, shape, strict=True):
        flat = flat * size + index
    quad = Var("q", "int64")
    analyzer = Analyzer()
    length = loops.as_int(plan.length)
    assert length is not None
    analyzer.bind(quad, tvm.ir.Range(ZERO, loops.const(length // plan.vector)))
    for var, extent in zip(plan.at, plan.axes, strict=True):
        if loops.as_int(extent) is not None:
            analyzer.bind(var, tvm.ir.Range(ZERO, loops.times(extent, 1)))
    first = loops.substitute(flat, {plan.element: quad * plan.vector})
    if not analyzer.can_prove(tirx.EQ(tirx.floormod(first, loops.const(plan.vector)), ZERO)):
        return False
    return all(
        analyzer.can_prove(
            tirx.EQ(loops.substitute(flat, {plan.element: quad * plan.vector + v}), first + v)
        )
        for v in range(1, plan.vector)
    )


__all__ = ["Elements", "neighbours"]
