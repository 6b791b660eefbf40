"""Rule for maps that read one operand across memory: transposes, alone or with what follows.

Written in order, such a map reads with a stride: each element of a vector from a cache line of
its own, and with a stride of a power of two all from the few lines that share a set of the cache.

1. A tile is ``TILE`` elements of the result's last axis by ``TILE`` of the axis that is the last
   of the operand; 16 x 16 floats are 16 whole cache lines of each side.
2. The tile is read in order into a buffer on the stack, and written in order from there: the
   only strided accesses are to 1 KiB that stays in the first-level cache.
3. Tiles run in parallel; what the tiles leave over runs as single elements.
"""

from __future__ import annotations

from tvm.ir import Expr, TensorLoad, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops, maps
from burnish.targets.cpu.stages import Iter, Stage, loads, replace_load, walk
from burnish.targets.target import CpuTarget

TILE = 16
_LEAST = 32 * 1024
"""Elements below which everything is in the first-level cache anyway."""


def emit(stage: Stage, target: CpuTarget) -> Stmt | None:
    """The map as tiles, or ``None`` where no operand is read across memory."""
    found = _crossing(stage)
    count = stage.iterations
    if found is None or count is None or count < _LEAST:
        return None
    load, across = found
    column = stage.spatial[-1]
    rest = [it for it in stage.spatial if it is not column and it is not across]
    extents = [it.extent for it in rest]
    wide, tall = column.size or 0, across.size or 0
    work = maps.work_of(stage)

    def tile(outer: dict[Var, Expr], top: Expr, left: Expr, height: int, width: int) -> Stmt:
        """``top`` on the operand's last axis, ``left`` on the result's."""
        kept = loops.local([height, width], str(load.ty.dtype), "tile")

        def read(c: Expr) -> Stmt:
            def one(r: Expr) -> Stmt:
                at = {**outer, across.var: top + r, column.var: left + c}
                return loops.store(kept, loops.substitute(load, at), [r, c])

            return loops.vector(height, one)

        def write(r: Expr) -> Stmt:
            def one(c: Expr) -> Stmt:
                at = {**outer, across.var: top + r, column.var: left + c}
                value = replace_load(stage.value, load, kept[r, c])
                return loops.store(
                    stage.out,
                    loops.substitute(value, at),
                    [loops.substitute(index, at) for index in stage.indices],
                )

            return loops.vector(width, one)

        return loops.seq(
            loops.allocate(kept), loops.serial(width, read), loops.serial(height, write)
        )

    def strip(outer: dict[Var, Expr], top: Expr, height: int) -> Stmt:
        full, left_over = divmod(wide, TILE)
        parts = [loops.serial(full, lambda b: tile(outer, top, b * TILE, height, TILE))]
        if left_over:
            parts.append(tile(outer, top, loops.const(full * TILE), height, left_over))
        return loops.seq(*parts)

    strips, left_over = divmod(tall, TILE)

    def task(p: Expr) -> Stmt:
        flat, s = loops.split_two(p, strips)
        at = dict(zip([it.var for it in rest], loops.split_index(flat, extents), strict=True))
        return strip(at, s * TILE, TILE)

    parts = [maps.parallel_or_serial(loops.product([*extents, strips]), work, task)]
    if left_over:

        def last(flat: Expr) -> Stmt:
            at = dict(zip([it.var for it in rest], loops.split_index(flat, extents), strict=True))
            return strip(at, loops.const(strips * TILE), left_over)

        parts.append(maps.parallel_or_serial(loops.product(extents), work, last))
    return loops.seq(*parts)


def _crossing(stage: Stage) -> tuple[TensorLoad, Iter] | None:
    """The one load that walks another axis than the result's last, and that axis."""
    if len(stage.spatial) < 2 or not stage.identity():
        return None
    column = stage.spatial[-1]
    if column.size is None or column.size < TILE:
        return None
    found: list[tuple[TensorLoad, Iter]] = []
    for load in loads(stage.value):
        *head, last = list(load.indices) or [None]
        if last is None:
            continue
        axis = next((it for it in stage.spatial[:-1] if last.same_as(it.var)), None)
        crosses = any(v.same_as(column.var) for index in head for v in walk(index, Var))
        if axis is not None and axis.size is not None and axis.size >= TILE and crosses:
            found.append((load, axis))
    return found[0] if len(found) == 1 else None
