"""The launch of a kernel of rows, and the statements of its stages."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.extremes import plain_maximum
from burnish.targets.cpu.stages import Stage, inlined, read_program, without_nothing
from burnish.targets.gpu.launch import Device, guarded, launch
from burnish.targets.gpu.rows.elements import Elements, neighbours
from burnish.targets.gpu.rows.flat import ZERO, with_values
from burnish.targets.gpu.rows.plan import Plan, planned, up
from burnish.targets.gpu.teams import together


def emit(func: tirx.PrimFunc, device: Device) -> tirx.PrimFunc | None:
    """The kernel laid out, or ``None`` where it is not all rows."""
    program = read_program(func)
    if program is None:
        return None
    plan = planned(inlined(without_nothing(program)), device)
    return None if plan is None else func.with_body(_launched(plan))


def _launched(plan: Plan) -> Stmt:
    team = plan.team

    def of_block(block: Expr, thread: Expr) -> Stmt:
        local, lane = loops.split_two(thread, team.lanes)
        row = block * team.rows + local
        known = loops.as_int(plan.count)
        whole = known is not None and known % team.rows == 0
        exists = [] if whole or team.rows == 1 else [row < plan.count]

        def of_row(row: Expr, lane: Expr, in_block: Expr) -> Stmt:
            places = loops.split_index(row, plan.axes)
            axes = [tirx.Bind(var, at) for var, at in zip(plan.at, places, strict=True)]
            written = _Row(plan, lane, in_block, exists)
            return loops.seq(*axes, *[part for s in plan.stages for part in written.stage(s)])

        inside = row if not exists else tirx.min(row, loops.times(plan.count, 1) - 1)
        return loops.named(of_row, row=inside, lane=lane, in_block=local)

    return launch(up(plan.count, team.rows), team.threads, of_block)


class _Row:
    """What the thread ``lane`` of a row does, the row ``in_block`` if it ``exists``.

    It grows by stage: results that are one number, and elements kept of those that are many.
    """

    def __init__(self, plan: Plan, lane: Expr, in_block: Expr, exists: list[Expr]) -> None:
        self.plan, self.lane, self.in_block, self.exists = plan, lane, in_block, exists
        self.elements = Elements(plan, lane)
        self.numbers: dict[Var, Expr] = {}

    def stage(self, stage: Stage) -> list[Stmt]:
        """The statements of a stage, after those before it."""
        if stage.combine is not None:
            return self._reduction(stage)
        value = with_values(stage.value, self.numbers)
        return self._map(stage, value) if stage.spatial else self._number(stage, value)

    def _number(self, stage: Stage, value: Expr) -> list[Stmt]:
        """One value of a row: every thread has it, the first of a row stores it."""
        dtype = str(stage.out.dtype)
        # TVM makes float32 of what is computed in bfloat16, but not of a name that is bound to it.
        name = Var("number", "float32" if dtype == "bfloat16" else dtype)
        self.numbers[stage.out] = number = name.astype(dtype)
        parts: list[Stmt] = [tirx.Bind(name, value.astype(str(name.ty.dtype)))]
        if self.plan.program.is_output(stage):
            put = loops.store(stage.out, number, list(stage.indices))
            first = [] if self.plan.team.lanes == 1 else [tirx.EQ(self.lane, ZERO)]
            parts.append(guarded([*first, *self.exists], put))
        return parts

    def _reduction(self, stage: Stage) -> list[Stmt]:
        """Partial results of a thread, then of all of the row (rules 2 and 4)."""
        dtype, vector = str(stage.out.dtype), self.plan.vector
        wide = "float32" if dtype in ("float16", "bfloat16") else dtype
        combine = tirx.max if stage.combine is plain_maximum else stage.combine
        assert combine is not None
        sums = loops.local([vector], wide, "sums")
        assert stage.init is not None
        init = stage.init.astype(wide) if wide != dtype else stage.init

        def add(value: Expr, _turn: Expr, v: Expr, _slot: Expr) -> Stmt:
            return loops.store(sums, combine(sums[(v,)], value.astype(wide)), [v])

        parts = [
            loops.allocate(sums),
            loops.unroll(vector, lambda v: loops.store(sums, init, [v])),
            *self.elements.each(with_values(stage.value, self.numbers), add),
        ]
        total: Expr = sums[(ZERO,)]
        for v in range(1, vector):
            total = combine(total, sums[(loops.const(v),)])
        more, result = together(self.plan.team, self.in_block, self.lane, total, combine)
        return [*parts, *more, *self._number(stage, result)]

    def _map(self, stage: Stage, value: Expr) -> list[Stmt]:
        """Elements of a row: to registers for later stages, and to memory where they are output."""
        plan = self.plan
        output, handed = plan.program.is_output(stage), plan.hands_on(stage)
        made = loops.local([plan.kept if handed else plan.vector], str(stage.out.dtype), "made")
        # What is recomputed by its readers and is no output never gets here.
        at_once = output and neighbours(plan, stage.out[tuple(stage.indices)])
        held = handed or at_once

        def place(turn: Expr, v: Expr) -> list[Expr]:
            where = {plan.element: self.elements.place(turn, v)}
            return [loops.substitute(i, where) for i in stage.indices]

        def keep(value: Expr, turn: Expr, v: Expr, slot: Expr) -> Stmt:
            if held:
                return loops.store(made, value, [slot if handed else v])
            return guarded(self.exists, loops.store(stage.out, value, place(turn, v)))

        def put(turn: Expr) -> Stmt:
            def one(v: Expr) -> Stmt:
                slot = turn * plan.vector + v if handed else v
                return loops.store(stage.out, made[(slot,)], place(turn, v))

            return self._out(one, at_once)

        parts: list[Stmt] = [loops.allocate(made)] if held else []
        parts += self.elements.each(value, keep, put if output and held else None)
        if handed:
            self.elements.keep(stage.out, made)
        return parts

    def _out(self, body: Callable[[Expr], Stmt], at_once: bool) -> Stmt:
        """``body`` of a turn's elements; the condition is around a vector, not in it."""
        if at_once:
            return guarded(self.exists, loops.vector(self.plan.vector, body, "v"))
        return loops.unroll(self.plan.vector, lambda v: guarded(self.exists, body(v)), "v")


__all__ = ["emit"]
