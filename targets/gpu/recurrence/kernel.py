"""The launch of a recurrence, and its loop over steps."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.gpu.launch import Device, barrier, launch
from burnish.targets.gpu.recurrence.held import ZERO, Held
from burnish.targets.gpu.recurrence.product import VECTOR
from burnish.targets.gpu.recurrence.step import step
from burnish.targets.recurrence_form import Operands, read

_MULTIPROCESSORS = 100
_MOST_ROWS = 4


def emit(func: tirx.PrimFunc, device: Device) -> tirx.PrimFunc | None:
    """The kernel of a recurrence, or ``None`` for any other function, or one that does not fit."""
    cell = read(func)
    if cell is None:
        return None
    given = Operands.of(cell, func.params)
    batch = loops.as_int(given.batch)
    rows = 1 if batch is None else max(1, min(_MOST_ROWS, -(-batch // _MULTIPROCESSORS)))
    _, _, gates, width = map(int, given.r.shape)
    if gates * width // VECTOR > device.threads:
        return None
    for count in range(rows, 0, -1):
        held = Held(cell, given, count, device)
        if held.shared_bytes <= device.shared:
            return func.with_body(_launched(held))
    return None


def _launched(held: Held) -> Stmt:
    batch = held.given.batch
    known = loops.as_int(batch)
    blocks: loops.Extent = (
        tirx.floordiv(batch + loops.const(held.rows - 1), held.rows)
        if known is None
        else -(-known // held.rows)
    )

    def of_block(block: Expr, thread: Expr) -> Stmt:
        held.thread, held.row = thread, block * held.rows
        return loops.seq(
            *map(loops.allocate, held.kept),
            _start(held),
            barrier(),
            loops.serial(
                held.given.steps,
                lambda s: loops.named(
                    lambda now: step(held, s, now), now=tirx.floormod(s, loops.const(2))
                ),
                "s",
            ),
            _finish(held),
        )

    return launch(blocks, held.threads, of_block)


def _start(held: Held) -> Stmt:
    """The first states to shared memory."""
    given = held.given

    def take(source: Var, to: Var, *first: Expr) -> Stmt:
        return held.each(
            int(source.shape[1]),
            lambda r, j: loops.store(to, held.wide(source[held.row + r, j]), [*first, r, j]),
        )

    memory = [] if given.c0 is None else [take(given.c0, held.cells)]
    return loops.seq(take(given.h0, held.states, ZERO), *memory)


def _finish(held: Held) -> Stmt:
    """The last states to memory."""
    given = held.given
    now = tirx.floormod(given.steps, loops.const(2))

    def give(source: Var, to: Var, *last: Expr) -> Stmt:
        return held.each(
            int(to.shape[1]),
            lambda r, j: loops.store(to, held.narrow(source[(*last, r, j)]), [held.row + r, j]),
        )

    memory = [] if given.c is None else [give(held.cells, given.c)]
    return loops.seq(give(held.states, given.h, now), *memory)


__all__ = ["emit"]
