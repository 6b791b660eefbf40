"""Which threads have which elements of a row, and what of it they keep in registers."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var

from burnish.targets.cpu import loops, rows
from burnish.targets.cpu.stages import Program, Stage
from burnish.targets.gpu.launch import Device
from burnish.targets.gpu.rows.flat import (
    flat,
    handed,
    in_place,
    length_of,
    read_often,
    recomputed,
)
from burnish.targets.gpu.teams import VECTOR, Team, choose_team

_HELD = 16
"""Elements of a row that a thread keeps, at most."""
_REGISTERS = 48
"""Of all that it keeps of a row."""


@dataclass(frozen=True)
class Plan:
    """``count`` rows of ``length``, by their ``axes``, whose places are the variables ``at``.

    A thread takes ``vector`` elements a turn. Where rows are ``held``, it keeps what it reads by
    one of ``shared_reads``, and what a stage hands to another. ``stages`` are over ``element``.
    """

    program: Program
    stages: tuple[Stage, ...]
    axes: tuple[Expr, ...]
    at: tuple[Var, ...]
    element: Var
    length: loops.Extent
    count: loops.Extent
    team: Team
    vector: int
    held: bool
    shared_reads: tuple[TensorLoad, ...]

    @property
    def turns(self) -> loops.Extent:
        """Of a thread, for a row."""
        return up(self.length, self.team.lanes * self.vector)

    @property
    def kept(self) -> int:
        """Elements that a thread has of a row that is held."""
        return int(loops.as_int(self.turns) or 0) * self.vector

    def hands_on(self, stage: Stage) -> bool:
        """Whether later stages take elements from ``stage`` in registers."""
        return self.held and handed(stage, self.stages)


def planned(program: Program, device: Device) -> Plan | None:
    """``None`` where it is not all rows."""
    group = rows.match(program, 0)
    if group is None or len(group.stages) != len(program.stages):
        return None
    length = length_of(group)
    if length is None:
        return None
    element = Var("e", "int64")
    at = tuple(Var(f"r{axis}", "int64") for axis in range(group.rows))
    stages = [flat(stage, at, element, length) for stage in group.stages]
    if not in_place(stages):
        return None
    axes = tuple(it.extent for it in group.stages[0].spatial[: group.rows])
    count = loops.product(axes)
    known = loops.as_int(length)
    team = choose_team(loops.as_int(count), known, device)
    vector = VECTOR if known is not None and known % VECTOR == 0 else 1
    many = None if known is None else int(up(known, team.lanes * vector)) * vector
    often = read_often(stages, element)
    kept = len(often) + sum(handed(stage, stages) for stage in stages)
    held = many is not None and many <= _HELD and kept * many <= _REGISTERS
    if not held:
        often, stages = [], recomputed(program, stages)
    return Plan(
        program, tuple(stages), axes, at, element, length, count, team, vector, held, tuple(often)
    )


def up(extent: loops.Extent, by: int) -> loops.Extent:
    """``extent / by``, rounded up."""
    known = loops.as_int(extent)
    if known is not None:
        return -(-known // by)
    return tirx.floordiv(extent + loops.const(by - 1), by)


__all__ = ["Plan", "planned", "up"]
