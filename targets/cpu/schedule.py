"""The default schedule of a CPU kernel: rules tried in order on each stage of it.

0. ``attention``, ``scans`` and ``recurrence``  the whole kernel, known by its attribute;
   ``winograd``  stages, known likewise
1. ``rows``   stages that reduce trailing axes and work row by row (softmax, norms)
2. ``tiles``  a reduction with a contiguous column axis, and the store after it
3. ``folds``  any other reduction: one element at a time, elements in parallel
4. ``transposes``  maps that read across memory
5. ``maps``   everything else that only maps elements

A kernel that is not made of plain stages (sorting, scans, scatters) keeps its own loops, the
outermost independent one run in parallel.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Expr, Var
from tvm.s_tir import SBlock, SBlockRealize
from tvm.tirx import Evaluate, For, ForKind, SeqStmt, Stmt

from burnish.targets.cpu import (
    attention,
    loops,
    maps,
    recurrence,
    rows,
    scans,
    tiles,
    transposes,
    winograd,
)
from burnish.targets.cpu.padding import infinite_padding, without_padding
from burnish.targets.cpu.rounding import written_out
from burnish.targets.cpu.stages import (
    Program,
    Stage,
    inlined,
    loads_of,
    read_program,
    walk,
    without_nothing,
)
from burnish.targets.cpu.tiling import Tiling, packed_width
from burnish.targets.cpu.vector_math import vectorized_math
from burnish.targets.target import CpuTarget

SCHEDULED = "burnish.scheduled"
"""Function attribute of kernels that already are what they should be."""
RULE = "burnish.rule"
"""Function attribute: the rules that laid a kernel out, in order, joined by ``+``."""
DEFAULT_TILING = Tiling()


def alternatives(func: tirx.PrimFunc, target: CpuTarget) -> list[tirx.PrimFunc]:
    """Other register tiles for a kernel with packed weights, for tuning to try; else none."""
    program = read_program(func)
    if program is None or not any(packed_width(stage) for stage in program.stages):
        return []
    found = [schedule(func, target)]
    for outside in (True, False):
        for count in _ROW_CHOICES:
            new = schedule(func, target, Tiling(count, outside))
            if not any(tvm_ffi.structural_equal(new, known) for known in found):
                found.append(new)
    return found[1:]


_ROW_CHOICES = (4, 6, 3, 8, 5, 7, 12, 2)


def schedule(
    func: tirx.PrimFunc, target: CpuTarget, tiling: Tiling = DEFAULT_TILING
) -> tirx.PrimFunc:
    """``func`` laid out for ``target``: same parameters, same results.

    ``tiling`` overrides choices of the ``tiles`` rule.
    """
    attrs = dict(func.attrs.items()) if func.attrs is not None else {}
    if SCHEDULED in attrs:
        return finished(func, exact_extremes=attrs.get(RULE) != "attention")
    written = scans.emit(func, target)
    if written is not None:
        return finished(written).with_attr({SCHEDULED: True, RULE: "scans"})
    repeated = recurrence.emit(func, target)
    if repeated is not None:
        return finished(repeated).with_attr({SCHEDULED: True, RULE: "recurrence"})
    fused = attention.emit(func, target)
    if fused is not None:
        fused = finished(fused, exact_extremes=False)
        return fused.with_attr({SCHEDULED: True, RULE: "attention"})
    program = read_program(func)
    if program is None:
        return finished(parallelized(func)).with_attr(RULE, "own loops")
    program = without_padding(
        inlined(infinite_padding(without_nothing(program))),
        lambda stage, following: tiles.accepts(stage, following, target, tiling),
    )
    body, rules = _emit(program, target, tiling)
    attrs = {**{str(k): v for k, v in attrs.items()}, RULE: "+".join(dict.fromkeys(rules))}
    return finished(
        loops.prim_func(program.params, body, {**attrs, "s_tir": True, SCHEDULED: True})
    )


def finished(func: tirx.PrimFunc, *, exact_extremes: bool = True) -> tirx.PrimFunc:
    """Loops laid out; what is left is expressions that vectorize and round as they should."""
    return written_out(vectorized_math(func, exact_extremes=exact_extremes))


def _emit(program: Program, target: CpuTarget, tiling: Tiling) -> tuple[Stmt, list[str]]:
    """The kernel's body, and the rules that wrote it, in order."""
    parts: list[Stmt] = []
    used: list[str] = []
    position = 0
    spilled: list[Stage] = []
    while position < len(program.stages):
        stage = program.stages[position]
        fast = winograd.match(program, position, target)
        if fast is not None:
            parts.append(winograd.emit(fast, target))
            used.append("winograd")
            if not program.is_output(fast.final):
                spilled.append(fast.final)
            position += fast.stages
            continue
        group = rows.match(program, position)
        if group is not None:
            parts.append(rows.emit(program, group, target))
            used.append("rows")
            spilled.extend(s for s in group.stages[-1:] if not program.is_output(s))
            position += len(group.stages)
            continue
        following = _epilogue(program, position)
        if stage.combine is not None and following is not None:
            tiled = tiles.emit(program, stage, following, target, tiling)
            if tiled is not None:
                parts.append(tiled)
                used.append("tiles")
                if not program.is_output(following):
                    spilled.append(following)
                position += 2
                continue
        if not program.is_output(stage):
            spilled.append(stage)
        part, rule = _alone(program, stage, target, tiling)
        parts.append(part)
        used.append(rule)
        position += 1
    if not parts:
        return Evaluate(loops.const(0)), ["nothing"]
    return loops.seq(*[loops.allocate(stage.out) for stage in spilled], *parts), used


def _alone(program: Program, stage: Stage, target: CpuTarget, tiling: Tiling) -> tuple[Stmt, str]:
    if stage.combine is None:
        turned = transposes.emit(stage, target)
        return (turned, "transposes") if turned is not None else (maps.emit(stage, target), "maps")
    tiled = tiles.emit(program, stage, None, target, tiling)
    return (tiled, "tiles") if tiled is not None else (_fold(stage), "folds")


def _fold(stage: Stage) -> Stmt:
    """Rule 3."""
    extents = [it.extent for it in stage.spatial]
    assert stage.combine is not None
    combine = stage.combine

    def element(flat: Expr) -> Stmt:
        at = dict(
            zip([it.var for it in stage.spatial], loops.split_index(flat, extents), strict=True)
        )
        acc = loops.local([1], str(stage.out.dtype), "acc")
        zero = loops.const(0)

        def over(left: list[tuple[Var, Expr]], done: dict[Var, Expr]) -> Stmt:
            if left:
                (var, extent), *others = left
                return loops.serial(extent, lambda k: over(others, {**done, var: k}))
            value = loops.substitute(stage.value, done)
            term = loops.store(acc, combine(acc[zero], value), [zero])
            exists = [loops.substitute(guard.condition, done) for guard in stage.guards]
            return loops.branch(tirx.all(*exists), term) if exists else term

        return loops.seq(
            loops.allocate(acc),
            loops.store(acc, stage.init, [zero]),
            over([(it.var, it.extent) for it in stage.reduce], at),
            loops.store(stage.out, acc[zero], [loops.substitute(i, at) for i in stage.indices]),
        )

    return maps.parallel_or_serial(loops.product(extents), maps.work_of(stage), element)


def _epilogue(program: Program, position: int) -> Stage | None:
    """The next stage, if it is the only reader of the one at ``position``."""
    stage = program.stages[position]
    readers = program.readers(stage.out)
    if program.is_output(stage) or position + 1 >= len(program.stages) or len(readers) != 1:
        return None
    following = program.stages[position + 1]
    return following if readers[0] is following and loads_of(following.value, stage.out) else None


def parallelized(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """The outermost independent loop of each nest of ``func`` run in parallel.

    Only loops that every block below binds to a spatial axis are independent.
    """
    body = func.body
    if not isinstance(body, SBlockRealize):
        return func
    root = body.block
    nests = list(root.body.seq) if isinstance(root.body, SeqStmt) else [root.body]
    new = [_parallel_nest(nest) for nest in nests]
    block = SBlock(
        root.iter_vars,
        root.reads,
        root.writes,
        root.name_hint,
        SeqStmt(new) if len(new) > 1 else new[0],
        root.init,
        root.alloc_buffers,
        root.match_buffers,
        root.annotations,
    )
    return func.with_body(SBlockRealize(body.iter_values, body.predicate, block))


def _parallel_nest(nest: Stmt) -> Stmt:
    if not isinstance(nest, For) or nest.kind != ForKind.SERIAL or loops.as_int(nest.extent) == 1:
        return nest
    inner = nest.body
    while isinstance(inner, For):
        inner = inner.body
    if not isinstance(inner, SBlockRealize):
        return nest
    bound = [
        iv.iter_type
        for iv, value in zip(inner.block.iter_vars, inner.iter_values, strict=True)
        if value.same_as(nest.loop_var)
    ]
    uses = [v for value in inner.iter_values for v in walk(value, Var) if v.same_as(nest.loop_var)]
    if bound != [0] or len(uses) != 1:
        return nest
    return For(nest.loop_var, nest.min, nest.extent, ForKind.PARALLEL, nest.body)
