"""Rule for kernels that work row by row: softmax, norms, sums and extremes over the last axes.

A row is one index of the leading axes; what is done to it is several stages, as
:mod:`burnish.targets.cpu.rows` finds them.

1. Threads share a row (a :class:`~burnish.targets.gpu.teams.Team`); a block has several short
   rows. A thread takes four neighbours at a time where rows are whole fours, the threads of a row
   side by side, so that a row is read in whole lines.
2. What several stages read of a row is read once and kept in registers, as is what one stage
   hands to another; sums and extremes are found by all threads of the row together, so that means
   and variances take two passes over registers and none over memory.
3. A row too long for that, or of open length, is read again by each stage, and what one stage
   would hand to another is computed again.
4. Two-byte floats are summed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.ir.prim import expr_deep_equal
from tvm.sym import Analyzer
from tvm.tirx import Stmt

from burnish.targets.cpu import loops, rows
from burnish.targets.cpu.extremes import plain_maximum
from burnish.targets.cpu.regrouped import joined
from burnish.targets.cpu.stages import (
    Iter,
    Program,
    Stage,
    inlined,
    loads,
    loads_of,
    read_program,
    replace_load,
    replace_loads,
    walk,
    without_nothing,
)
from burnish.targets.gpu.launch import Device, guarded, launch
from burnish.targets.gpu.teams import VECTOR, Team, choose_team, together

_HELD = 16
"""Elements of a row that a thread keeps, at most."""
_REGISTERS = 48
"""Of all that it keeps of a row."""
_ZERO = loops.const(0)


def emit(func: tirx.PrimFunc, device: Device) -> tirx.PrimFunc | None:
    """The kernel laid out, or ``None`` where it is not all rows."""
    program = read_program(func)
    if program is None:
        return None
    program = inlined(without_nothing(program))
    group = rows.match(program, 0)
    if group is None or len(group.stages) != len(program.stages):
        return None
    length = _length(group)
    if length is None:
        return None
    count = loops.product([it.extent for it in group.stages[0].spatial[: group.rows]])
    team = choose_team(loops.as_int(count), loops.as_int(length), device)
    kernel = _Kernel(program, group, length, count, team)
    return func.with_body(kernel.body()) if kernel.in_place else None


def _length(group: rows.RowGroup) -> loops.Extent | None:
    """Elements of a row, the same for every stage that has any."""
    found: loops.Extent | None = None
    for stage in group.stages:
        inner = [*stage.spatial[group.rows :], *stage.reduce]
        if all(it.size == 1 for it in inner):
            continue
        length = loops.product([it.extent for it in inner])
        if found is not None and not loops.simplify_equal(found, length):
            return None
        found = length
    return found


@dataclass
class _Row:
    """What is known of a row so far: results of stages that are one number, elements kept of
    those that are many, and what was read of outside."""

    numbers: dict[Var, Expr] = field(default_factory=dict)
    kept: dict[Var, Var] = field(default_factory=dict)
    read: list[tuple[TensorLoad, Var]] = field(default_factory=list)


class _Kernel:
    """One kernel being written."""

    def __init__(
        self,
        program: Program,
        group: rows.RowGroup,
        length: loops.Extent,
        count: loops.Extent,
        team: Team,
    ) -> None:
        self.program, self.team = program, team
        self.length, self.count = length, count
        self.axes = [it.extent for it in group.stages[0].spatial[: group.rows]]
        known = loops.as_int(length)
        self.vector = VECTOR if known is not None and known % VECTOR == 0 else 1
        step = team.lanes * self.vector
        self.turns: loops.Extent = _up(length, step)
        self.element = Var("e", "int64")
        self.at = [Var(f"r{axis}", "int64") for axis in range(group.rows)]
        stages = [self._flat(stage, group.rows) for stage in group.stages]
        many = known is not None and -(-known // step) * self.vector
        self.held = bool(many) and many <= _HELD
        if self.held:
            self.shared_reads = _read_often(stages, self.element)
            kept = len(self.shared_reads) + sum(self._handed(s, stages) for s in stages)
            self.held = kept * many <= _REGISTERS
        self.in_place = all(
            self._own(load, other)
            for stage in stages
            for other in stages
            if other.combine is None and other.spatial
            for load in loads_of(stage.value, other.out)
        )
        if not self.held:
            self.shared_reads = []
            stages = _recomputed(program, stages)
        self.stages = stages
        self.lane: Expr = _ZERO
        self.in_block: Expr = _ZERO
        self.exists: list[Expr] = []

    def _flat(self, stage: Stage, leading: int) -> Stage:
        """``stage`` over the row's axes, by variables all share, and one axis of elements."""
        where: dict[Var, Any] = {
            it.var: var for it, var in zip(stage.spatial[:leading], self.at, strict=True)
        }
        inner = [*stage.spatial[leading:], *stage.reduce]
        own = [*stage.indices]
        if all(it.size == 1 for it in inner):
            iters: list[Iter] = []
            where |= {it.var: _ZERO for it in inner}
        else:
            reads: list[Expr] = [stage.value]
            if stage.combine is None:
                reads.append(stage.out[tuple(own)])
            merged, became = joined(inner, reads)
            parts = loops.split_index(self.element, [it.extent for it in merged])
            runs = {it.var: part for it, part in zip(merged, parts, strict=True)}
            where |= {it.var: runs[it.var] for it in inner if it.var in runs}
            where |= {var: loops.substitute(value, runs) for var, value in became.items()}
            iters = [Iter(self.element, loops.times(self.length, 1))]
        where = {var: _typed(value, var) for var, value in where.items()}
        if stage.combine is not None:
            # What is reduced is one number, whatever axes of one element it has.
            return replace(
                stage,
                spatial=(),
                reduce=tuple(iters),
                indices=tuple(
                    loops.substitute(loops.substitute(i, where), {self.element: _ZERO}) for i in own
                ),
                value=loops.substitute(stage.value, where),
            )
        return replace(
            stage,
            spatial=tuple(iters),
            indices=tuple(loops.substitute(i, where) for i in own),
            value=loops.substitute(stage.value, where),
        )

    def _own(self, load: TensorLoad, stage: Stage) -> bool:
        """Whether the element that is read is the one that ``stage`` makes there."""
        return all(
            loops.simplify_equal(a, b) for a, b in zip(load.indices, stage.indices, strict=True)
        )

    def _handed(self, stage: Stage, stages: Sequence[Stage]) -> bool:
        """Whether later stages read elements of what ``stage`` makes."""
        return bool(stage.spatial) and any(loads_of(s.value, stage.out) for s in stages)

    def body(self) -> Stmt:
        def of_block(block: Expr, thread: Expr) -> Stmt:
            local, lane = loops.split_two(thread, self.team.lanes)
            row = block * self.team.rows + local
            known = loops.as_int(self.count)
            whole = known is not None and known % self.team.rows == 0
            self.exists = [] if whole or self.team.rows == 1 else [row < self.count]

            def of_row(row: Expr, lane: Expr, in_block: Expr) -> Stmt:
                self.lane, self.in_block = lane, in_block
                places = loops.split_index(row, self.axes)
                axes = [tirx.Bind(var, at) for var, at in zip(self.at, places, strict=True)]
                return loops.seq(*axes, self._stages())

            inside = row if not self.exists else tirx.min(row, loops.times(self.count, 1) - 1)
            return loops.named(of_row, row=inside, lane=lane, in_block=local)

        return launch(_up(self.count, self.team.rows), self.team.threads, of_block)

    def _stages(self) -> Stmt:
        known = _Row()
        return loops.seq(*[part for stage in self.stages for part in self._stage(stage, known)])

    def _stage(self, stage: Stage, known: _Row) -> list[Stmt]:
        if stage.combine is not None:
            return self._reduction(stage, known)
        if not stage.spatial:
            return self._number(stage, self._value(stage.value, known), known)
        return self._map(stage, known)

    def _value(self, value: Expr, known: _Row) -> Expr:
        """``value`` with what is known in the place of loads."""
        for buffer, number in known.numbers.items():
            value = replace_loads(value, buffer, _always(number))
        return value

    def _number(self, stage: Stage, value: Expr, known: _Row) -> list[Stmt]:
        """One value of a row: every thread has it, the first of a row stores it."""
        name = Var("number", str(value.ty.dtype))
        known.numbers[stage.out] = name
        parts: list[Stmt] = [tirx.Bind(name, value)]
        if self.program.is_output(stage):
            put = loops.store(stage.out, name, list(stage.indices))
            first = [] if self.team.lanes == 1 else [tirx.EQ(self.lane, _ZERO)]
            parts.append(guarded([*first, *self.exists], put))
        return parts

    def _reduction(self, stage: Stage, known: _Row) -> list[Stmt]:
        dtype = str(stage.out.dtype)
        wide = "float32" if dtype in ("float16", "bfloat16") else dtype
        combine = tirx.max if stage.combine is plain_maximum else stage.combine
        assert combine is not None
        sums = loops.local([self.vector], wide, "sums")
        assert stage.init is not None
        init = stage.init.astype(wide) if wide != dtype else stage.init

        def add(value: Expr, _turn: Expr, v: Expr, _slot: Expr) -> Stmt:
            return loops.store(sums, combine(sums[(v,)], value.astype(wide)), [v])

        parts = [
            loops.allocate(sums),
            loops.unroll(self.vector, lambda v: loops.store(sums, init, [v])),
            *self._elements(stage, known, add),
        ]
        total: Expr = sums[(_ZERO,)]
        for v in range(1, self.vector):
            total = combine(total, sums[(loops.const(v),)])
        more, result = together(self.team, self.in_block, self.lane, total, combine)
        return [*parts, *more, *self._number(stage, result.astype(dtype), known)]

    def _map(self, stage: Stage, known: _Row) -> list[Stmt]:
        dtype = str(stage.out.dtype)
        output = self.program.is_output(stage)
        handed = self.held and self._handed(stage, self.stages)
        many = int(loops.as_int(self.turns) or 0) * self.vector if handed else self.vector
        made = loops.local([many], dtype, "made")
        # What is recomputed by its readers and is no output never gets here.
        together_out = output and self._neighbours(stage.out[tuple(stage.indices)])

        def keep(value: Expr, turn: Expr, v: Expr, slot: Expr) -> Stmt:
            if handed or together_out:
                return loops.store(made, value, [slot if handed else v])
            where = {self.element: self._place(turn, v)}
            return self._put(stage, value, [loops.substitute(i, where) for i in stage.indices])

        def after(turn: Expr) -> Stmt:
            def copy(v: Expr) -> Stmt:
                where = {self.element: self._place(turn, v)}
                slot = turn * self.vector + v if handed else v
                place = [loops.substitute(i, where) for i in stage.indices]
                return self._put(stage, made[(slot,)], place)

            return self._copy(copy, together_out)

        parts: list[Stmt] = [loops.allocate(made)] if handed or together_out else []
        parts += self._elements(
            stage, known, keep, after if output and (handed or together_out) else None
        )
        if handed:
            known.kept[stage.out] = made
        return parts

    def _put(self, stage: Stage, value: Expr, place: list[Expr]) -> Stmt:
        return guarded(self.exists, loops.store(stage.out, value, place))

    def _copy(self, body: Callable[[Expr], Stmt], at_once: bool) -> Stmt:
        if not at_once or self.vector == 1:
            return loops.unroll(self.vector, body, "v")
        if self.exists:
            # The condition is around the vector, not in it.
            exists, self.exists = self.exists, []
            inside = loops.vector(self.vector, body, "v")
            self.exists = exists
            return guarded(exists, inside)
        return loops.vector(self.vector, body, "v")

    def _place(self, turn: Expr, v: Expr) -> Expr:
        return (turn * self.team.lanes + self.lane) * self.vector + v

    def _elements(
        self,
        stage: Stage,
        known: _Row,
        body: Callable[[Expr, Expr, Expr, Expr], Stmt],
        after: Callable[[Expr], Stmt] | None = None,
    ) -> list[Stmt]:
        """``body`` of each element's value, the turn, and its place in a vector and among those
        kept; ``after`` every turn."""
        value = self._value(stage.value, known)
        before: list[Stmt] = []
        fetched: list[tuple[TensorLoad, Var, bool]] = []
        for load in self._fetches(value):
            found = next((b for old, b in known.read if _same(old, load)), None)
            often = any(_same(load, other) for other in self.shared_reads)
            if found is not None:
                value = replace_load(value, load, _At(found, True).load())
                continue
            if not often and not (self.vector > 1 and self._neighbours(load)):
                continue
            size = int(loops.as_int(self.turns) or 0) * self.vector if often else self.vector
            buffer = loops.local([size], str(load.source.dtype), "read")
            before.append(loops.allocate(buffer))
            fetched.append((load, buffer, often))
            value = replace_load(value, load, _At(buffer, often).load())
            if often:
                known.read.append((load, buffer))
        for out, buffer in known.kept.items():
            value = replace_loads(value, out, _always(_At(buffer, True).load()))

        def turn(i: Expr) -> Stmt:
            parts: list[Stmt] = []
            parts += [self._fetch(*one, i) for one in fetched]

            def one(v: Expr) -> Stmt:
                slot = i * self.vector + v
                where = {self.element: self._place(i, v), _SLOT: slot, _LANE: v}
                return body(loops.substitute(value, where), i, v, slot)

            parts.append(loops.unroll(self.vector, one, "v"))
            if after is not None:
                parts.append(after(i))
            inside = loops.seq(*parts)
            known_length = loops.as_int(self.length)
            whole = known_length is not None and (
                known_length % (self.team.lanes * self.vector) == 0
            )
            return guarded([] if whole else [self._place(i, _ZERO) < self.length], inside)

        make = loops.unroll if self.held else loops.serial
        return [*before, make(self.turns, turn, "i")]

    def _fetch(self, load: TensorLoad, buffer: Var, often: bool, turn: Expr) -> Stmt:
        """What a turn reads of outside, to registers."""

        def one(v: Expr) -> Stmt:
            where = {self.element: self._place(turn, v)}
            slot = turn * self.vector + v if often else v
            return loops.store(buffer, loops.substitute(load, where), [slot])

        at_once = self.vector > 1 and self._neighbours(load)
        return (loops.vector if at_once else loops.unroll)(self.vector, one, "v")

    def _fetches(self, value: Expr) -> list[TensorLoad]:
        """Different loads from outside that move with the element."""
        found: list[TensorLoad] = []
        inside = [stage.out for stage in self.stages if self.held]
        for load in loads(value):
            if any(load.source.same_as(buffer) for buffer in inside):
                continue
            if not _moves(load, self.element) or load.source.scope() == "local":
                continue
            if not any(_same(load, other) for other in found):
                found.append(load)
        return found

    def _neighbours(self, load: TensorLoad) -> bool:
        """Whether four elements in a row from a multiple of four on lie so in memory, in line."""
        if self.vector == 1 or tvm.DataType(str(load.source.dtype)).itemsize not in (2, 4):
            return False
        shape = list(load.source.shape)
        flat: Expr = _ZERO
        for index, size in zip(load.indices, shape, strict=True):
            flat = flat * size + index
        quad = Var("q", "int64")
        analyzer = Analyzer()
        length = loops.as_int(self.length)
        assert length is not None
        analyzer.bind(quad, tvm.ir.Range(_ZERO, loops.const(length // self.vector)))
        for var, extent in zip(self.at, self.axes, strict=True):
            if loops.as_int(extent) is not None:
                analyzer.bind(var, tvm.ir.Range(_ZERO, loops.times(extent, 1)))
        first = loops.substitute(flat, {self.element: quad * self.vector})
        if not analyzer.can_prove(tirx.EQ(tirx.floormod(first, loops.const(self.vector)), _ZERO)):
            return False
        return all(
            analyzer.can_prove(
                tirx.EQ(loops.substitute(flat, {self.element: quad * self.vector + v}), first + v)
            )
            for v in range(1, self.vector)
        )


_SLOT, _LANE = Var("slot", "int64"), Var("in_vector", "int64")


@dataclass(frozen=True)
class _At:
    """A register among those kept of the row, or of the vector alone."""

    buffer: Var
    often: bool

    def load(self) -> Expr:
        return self.buffer[(_SLOT if self.often else _LANE,)]


def _up(extent: loops.Extent, by: int) -> loops.Extent:
    known = loops.as_int(extent)
    if known is not None:
        return -(-known // by)
    return tirx.floordiv(extent + loops.const(by - 1), by)


def _always(value: Expr) -> Callable[[list[Expr]], Expr]:
    return lambda _indices: value


def _typed(value: Any, var: Var) -> Any:
    dtype = str(var.ty.dtype)
    return value if str(value.ty.dtype) == dtype else value.astype(dtype)


def _moves(load: TensorLoad, element: Var) -> bool:
    return any(v.same_as(element) for index in load.indices for v in walk(index, Var))


def _same(a: TensorLoad, b: TensorLoad) -> bool:
    return a.source.same_as(b.source) and all(
        expr_deep_equal(x, y) for x, y in zip(a.indices, b.indices, strict=True)
    )


def _read_often(stages: Sequence[Stage], element: Var) -> list[TensorLoad]:
    """Loads from outside that several stages have."""
    made = [stage.out for stage in stages]
    found: list[tuple[TensorLoad, int]] = []
    for number, stage in enumerate(stages):
        for load in loads(stage.value):
            if not _moves(load, element) or any(load.source.same_as(out) for out in made):
                continue
            if not any(_same(load, other) and n == number for other, n in found):
                found.append((load, number))
    often: list[TensorLoad] = []
    for load, number in found:
        again = any(n != number and _same(load, other) for other, n in found)
        if again and not any(_same(load, other) for other in often):
            often.append(load)
    return often


def _recomputed(program: Program, stages: Sequence[Stage]) -> list[Stage]:
    """Stages that make elements of a row computed by each of their readers (rule 3)."""
    left: list[Stage] = []
    maps: dict[Var, Expr] = {}
    for stage in stages:
        value = stage.value
        for out, other in maps.items():
            value = replace_loads(value, out, _always(other))
        now = replace(stage, value=value)
        if stage.combine is None and stage.spatial:
            maps[stage.out] = value
        if program.is_output(stage) or not (stage.combine is None and stage.spatial):
            left.append(now)
    return left
