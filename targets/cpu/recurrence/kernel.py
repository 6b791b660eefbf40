"""The loop over the steps of a recurrence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvm import tirx
from tvm.ir import Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.recurrence.held import Held
from burnish.targets.cpu.recurrence.product import Loops
from burnish.targets.cpu.recurrence.tile import step
from burnish.targets.recurrence_form import Cell, Operands, read
from burnish.targets.target import CpuTarget


def emit(func: tirx.PrimFunc, target: CpuTarget) -> tirx.PrimFunc | None:
    """The kernel of a recurrence, or ``None`` for any other function."""
    cell = read(func)
    if cell is None:
        return None
    body = _body(cell, func.params, Loops(target.lanes, target.registers, fast=True))
    kept = {str(key): value for key, value in func.attrs.items()}
    return loops.prim_func(func.params, body, {**kept, "s_tir": True})


def plain(cell: Cell, params: Sequence[Var], attrs: Mapping[str, Any]) -> tirx.PrimFunc:
    """The same in loops that any compiler runs, one element and one thread at a time."""
    body = _body(cell, params, Loops(1, 16, fast=False))
    return loops.prim_func(params, body, {**attrs, "s_tir": True})


def _body(cell: Cell, params: Sequence[Var], how: Loops) -> Stmt:
    held = Held(cell, Operands.of(cell, params), how)
    return loops.seq(
        *map(loops.allocate, held.kept),
        held.start(),
        loops.serial(
            held.steps,
            lambda s: loops.named(
                lambda now: step(held, s, now), now=tirx.floormod(s, loops.const(2))
            ),
            "s",
        ),
        held.finish(),
    )


__all__ = ["emit", "plain"]
