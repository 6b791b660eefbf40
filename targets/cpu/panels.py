"""Long sums, and weights that must be computed first: rules 5, 6 and 9 of ``tiles``.

A task is one column block and some of the row tiles. The sum is cut into runs; the weights of a
run, its panel, are read by all row tiles of the task while they lie in the second-level cache,
and each tile adds its part to a total of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.ir.prim import Mul
from tvm.tirx import Stmt

from burnish.targets.cpu import loops, maps
from burnish.targets.cpu.places import Places
from burnish.targets.cpu.stages import Iter, walk
from burnish.targets.cpu.tile import At, Extra, Tile
from burnish.targets.cpu.tiling import RUN, Plan, run_axis
from burnish.targets.target import CpuTarget

LEAST_TILES = 4
"""Row tiles from which on converting a panel first costs less than converting in each."""
_TOTAL_BYTES = 96 * 1024
_LINE = 16
"""Floats in a line of the caches."""


OFFSET = tirx.Var("offset", "int64")
"""Steps of a run's outermost axis from its first: TVM fails to simplify ``first + k - first``."""


@dataclass(frozen=True)
class Run:
    """Some terms of the sum: the axes ``at`` stand still, those of ``left`` are walked, the
    outermost of them from ``first`` on for ``count`` steps.
    """

    at: At
    left: tuple[Iter, ...]
    first: Expr
    count: int

    @property
    def sizes(self) -> list[int]:
        return [self.count, *(it.size or 1 for it in self.left[1:])] if self.left else []

    @property
    def steps(self) -> int:
        return math.prod(self.sizes)

    def step(self, at: At) -> Expr:
        """The number of the term at ``at``, from 0."""
        total: Expr = loops.const(0)
        for number, (it, size) in enumerate(zip(self.left, self.sizes, strict=True)):
            inside = at.get(OFFSET, at[it.var] - self.first)
            total = total * size + (inside if number == 0 else at[it.var])
        return total

    def start(self) -> At:
        """Where the run begins."""
        zeros = {it.var: loops.const(0) for it in self.left}
        return {**zeros, **self.at, **({self.left[0].var: self.first} if self.left else {})}


def whole_sum(plan: Plan) -> Run:
    reduce = plan.main.reduce
    return Run({}, tuple(reduce), loops.const(0), reduce[0].size or 1)


def computed_weights(plan: Plan) -> Expr | None:
    """The factor that must be computed first and depends on no row, or ``None``."""
    value = plan.main.value
    if plan.block is None or not isinstance(value, Mul) or isinstance(value.b, TensorLoad):
        return None
    axes = (*plan.outer, *plan.merged, *((plan.row,) if plan.row else ()))
    if any(v.same_as(it.var) for v in walk(value.b, Var) for it in axes):
        return None
    return value.b


def applies(places: Places) -> bool:
    """Whether the sum is long, or its weights are computed and read often enough."""
    plan = places.plan
    if plan.block is None or plan.dot is not None:
        return False
    if any(it.size is None for it in plan.main.reduce):
        return False
    return run_axis(plan.main) is not None or _converts(places)


def _converts(places: Places) -> bool:
    known = loops.as_int(places.count)
    often = known is None or known >= LEAST_TILES
    return often and computed_weights(places.plan) is not None


def emit(places: Places, target: CpuTarget) -> Stmt:
    """The whole kernel."""
    plan = places.plan
    chunks, each = _shares(places, target)
    known = loops.as_int(places.count)
    dtype = str(plan.main.out.dtype)
    total = loops.workspace([each, places.mr, plan.width], dtype, "total")
    converts = _converts(places)
    longest = max(run.steps for run in _all_runs(places))
    panel = loops.workspace([longest, plan.width], dtype, "panel")

    def task(p: Expr) -> Stmt:
        block, chunk = loops.split_two(p, chunks)
        first = chunk * each
        if known is not None and known % each == 0:
            return tiled(block, first, each)
        count = tirx.min(loops.const(each), places.count - first)
        return loops.named(tiled, block=block, first=first, count=count)

    def tiled(block: Expr, first: Expr, count: loops.Extent) -> Stmt:
        def over_tiles(now: Plan, body: Callable[[Tile, Expr], Stmt]) -> Stmt:
            return loops.serial(
                count,
                lambda t: places.at(now, first + t, block, lambda tile: body(tile, t)),
                name="t",
            )

        def cleared(t: Expr) -> Stmt:
            return loops.serial(
                places.mr,
                lambda r: loops.vectors(
                    plan.width,
                    plan.lanes,
                    lambda c: loops.store(total, plan.main.init, [t, r, c]),
                ),
            )

        def run_of(run: Run) -> Stmt:
            if not converts:
                ahead = prefetching(plan, run, block, each if known is not None else count)
                return over_tiles(
                    plan,
                    lambda tile, t: ahead(t, lambda extra: _part(tile, run, total, t, extra)),
                )
            now = _reading(plan, run, panel)
            return loops.seq(
                _filled(plan, run, panel, block),
                over_tiles(now, lambda tile, t: _part(tile, run, total, t, None)),
            )

        return loops.seq(
            loops.allocate(total),
            *([loops.allocate(panel)] if converts else []),
            loops.serial(count, cleared, name="t"),
            _over_runs(places, run_of),
            over_tiles(plan, lambda tile, t: tile.write(lambda r, c: total[t, r, c])),
        )

    return maps.parallel_or_serial(
        loops.product([plan.blocks, chunks]), maps.work_of(plan.main), task
    )


def _shares(places: Places, target: CpuTarget) -> tuple[loops.Extent, int]:
    """Chunks of the places, and places in each: few, as even as the threads need, their totals
    and what they read in a run small enough for the caches.
    """
    totals = _TOTAL_BYTES // (places.mr * places.plan.width * 4)
    most = max(1, min(totals, target.l2 // 2 // (places.mr * RUN * 4)))
    known = loops.as_int(places.count)
    if known is None:
        return tirx.floordiv(places.count + (most - 1), most), most
    if known == 0:
        return 1, 1

    def cost(chunks: int) -> int:
        tasks = -(-places.plan.blocks * chunks // target.threads)
        return tasks * (-(-known // chunks) + 1)

    least = -(-known // most)
    chosen = min(range(least, min(known, least + 4 * target.threads) + 1), key=cost)
    each = -(-known // chosen)
    return -(-known // each), each


def _fixed(places: Places) -> tuple[list[tuple[Iter, bool]], tuple[Iter, ...], int]:
    """The axes outside the runs, whether each is unrolled, those inside, and the run's length.

    A run's length counts steps of the outermost axis inside. Along an axis with guards each step
    is a run; where the guards are of the rows, border tiles must know the step.
    """
    plan = places.plan
    reduce = plan.main.reduce
    split = run_axis(plan.main)
    if split is None:
        return [], tuple(reduce), reduce[0].size or 1
    axis, length = split
    position = next(i for i, it in enumerate(reduce) if it is axis)
    guards = {reach.k: reach for reach in plan.reaches if reach.k is not None}
    if axis.var in guards:
        position, length = position + 1, 0
    fixed = [
        (it, it.var in guards and guards[it.var].rows is not None and bool(places.borders))
        for it in reduce[:position]
    ]
    inside = tuple(reduce[position:])
    return fixed, inside, length or (inside[0].size or 1 if inside else 1)


def _over_runs(places: Places, body: Callable[[Run], Stmt]) -> Stmt:
    fixed, inside, length = _fixed(places)

    def chunks(at: At) -> Stmt:
        if not inside:
            return body(Run(at, (), loops.const(0), 1))
        full, rest = divmod(inside[0].size or 1, length)
        parts = []
        if full:
            whole = loops.serial(
                full, lambda b: body(Run(at, inside, b * length, length)), name="run"
            )
            parts.append(whole)
        if rest:
            parts.append(body(Run(at, inside, loops.const(full * length), rest)))
        return loops.seq(*parts)

    def over(left: list[tuple[Iter, bool]], at: At) -> Stmt:
        if not left:
            return chunks(at)
        (it, unrolled), *others = left
        size = it.size or 1
        if unrolled:
            return loops.seq(*[over(others, {**at, it.var: loops.const(k)}) for k in range(size)])
        return loops.serial(size, lambda k: over(others, {**at, it.var: k}), name="run")

    return over(fixed, {})


def _all_runs(places: Places) -> list[Run]:
    found: list[Run] = []

    def note(run: Run) -> Stmt:
        found.append(run)
        return tirx.Evaluate(loops.const(0))

    _over_runs(places, note)
    return found


def _part(tile: Tile, run: Run, total: Var, t: Expr, extra: Extra | None) -> Stmt:
    """The terms of one run, added to the tile's total."""
    checked, live = tile.checked(), tile.live()
    conditions = []
    for var, k in run.at.items():
        reach = checked.get(var)
        if reach is None:
            continue
        if reach.rows is None:
            conditions.append(reach.holds({**tile.around, **run.at}))
        else:
            number = loops.as_int(k)
            assert number is not None
            live = tile.covered(reach, number, live)
    if not live:
        return tirx.Evaluate(loops.const(0))
    acc = tile.accumulators()
    if not run.left or run.count == run.left[0].size:
        terms = tile.steps(acc, run.left, run.at, live, checked, extra=extra)
    else:
        it, *others = run.left
        terms = loops.serial(
            run.count,
            lambda k: tile.steps(
                acc,
                others,
                {**run.at, it.var: run.first + k, OFFSET: k},
                live,
                checked,
                extra=extra,
            ),
            name="k",
        )
    joined = tile.over_tile(
        tile.computed, lambda r, c: loops.store(total, total[t, r, c] + acc[r, c], [t, r, c])
    )
    body = tile.outside(loops.seq(loops.allocate(acc), tile.cleared(acc), terms, joined))
    return loops.branch(tirx.all(*conditions), body) if conditions else body


def _reading(plan: Plan, run: Run, panel: Var) -> Plan:
    """The plan with the weights of a run read from ``panel``."""
    assert isinstance(plan.main.value, Mul)
    whole = not run.left or run.count == run.left[0].size
    step = run.step({it.var: it.var for it in run.left} | ({} if whole else {OFFSET: OFFSET}))
    value = plan.main.value.a * panel[step, plan.column.var]
    return replace(plan, main=replace(plan.main, value=value))


def _filled(plan: Plan, run: Run, panel: Var, block: Expr) -> Stmt:
    weight = computed_weights(plan)
    assert plan.block is not None
    block_var, column = plan.block.var, plan.column.var

    def fill(left: tuple[Iter, ...], sizes: list[int], at: At) -> Stmt:
        if left:
            it, *others = left
            make = loops.unroll if str(it.var.name).startswith("unroll") else loops.serial

            def inner(k: Expr) -> Stmt:
                here = {it.var: run.first + k, OFFSET: k} if it is run.left[0] else {it.var: k}
                return fill(tuple(others), sizes[1:], {**at, **here})

            return make(sizes[0], inner, name="k")
        step = run.step(at)

        def lane(c: Expr) -> Stmt:
            value = loops.substitute(weight, {**at, block_var: block, column: c})
            return loops.store(panel, value, [step, c])

        return loops.vectors(plan.width, plan.lanes, lane)

    return fill(run.left, run.sizes, dict(run.at))


def _stored_weights(plan: Plan) -> TensorLoad | None:
    """The load of the weights where they are read as stored."""
    if plan.dot is not None:
        return plan.dot.right
    value = plan.main.value
    return value.b if isinstance(value, Mul) and isinstance(value.b, TensorLoad) else None


Ahead = Callable[[Expr, Callable[[Extra | None], Stmt]], Stmt]
"""Of a tile's number and what makes its statement of what each step does besides."""


def unasked(_t: Expr, body: Callable[[Extra | None], Stmt]) -> Stmt:
    """A tile whose steps ask for nothing."""
    return body(None)


def prefetching(plan: Plan, run: Run, block: Expr, tiles: loops.Extent) -> Ahead:
    """For tile number ``t`` of ``tiles``, what to do in each step so that the next panel comes.

    The panel after this one lies right behind it in memory, that of the next block included. Its
    lines are as many parts as a step has vectors, which the tiles share; tiles that are left
    without one ask for the last once more. Where the number of tiles is open each step names a
    line for every vector, and tiles that take fewer parts name one of theirs several times.

    Nothing where weights are not plain loads in that order, or there is no other panel.
    """
    weight = _stored_weights(plan)
    if plan.block is None or weight is None:
        return unasked
    first, *middle, _lane = weight.indices
    reduce = [it.var for it in plan.main.reduce]
    in_order = len(middle) == len(reduce) and all(
        a.same_as(b) for a, b in zip(middle, reduce, strict=True)
    )
    alone = plan.blocks == 1 and run.steps == math.prod(it.size or 1 for it in plan.main.reduce)
    if not in_order or alone or not first.same_as(plan.block.var):
        return unasked
    weights, vectors = weight.source, plan.vectors
    group = plan.dot.instruction.group if plan.dot is not None else 1
    start = run.start()
    known = loops.as_int(tiles)

    def asked(lines: Callable[[Expr], list[Expr]]) -> Extra:
        def step(at: At) -> Stmt:
            places = [
                [
                    block,
                    *(start[v] for v in reduce),
                    (run.steps * plan.width + line * _LINE) * group,
                ]
                for line in lines(run.step(at))
            ]
            return loops.seq(*[loops.prefetch(weights, place) for place in places])

        return step

    def of_known(t: Expr, body: Callable[[Extra | None], Stmt]) -> Stmt:
        each = max(1, -(-vectors // (known or 1)))
        most = -(-vectors // each) - 1
        turn = t if (known or 1) <= most + 1 else tirx.min(t, loops.const(most))
        if most == 0:
            turn = loops.const(0)
        return body(asked(lambda k: [(turn * run.steps + k) * each + n for n in range(each)]))

    def of_open(t: Expr, body: Callable[[Extra | None], Stmt]) -> Stmt:
        def by_tiles(value: Callable[[int], int]) -> Expr:
            """Without a division: TVM is slow to simplify what has one by an open size."""
            chosen = loops.const(value(vectors))
            for count in range(vectors - 1, 0, -1):
                chosen = tirx.Select(tiles <= count, loops.const(value(count)), chosen)
            return chosen

        def shared(share: Expr, last: Expr) -> Stmt:
            begin = tirx.min(t, last) * share * run.steps
            more = {f"line{n}": begin + tirx.min(share - 1, n) for n in range(vectors)}
            return loops.named(
                lambda *lines: body(asked(lambda k: [line + k * share for line in lines])), **more
            )

        return loops.named(
            shared,
            share=by_tiles(lambda n: -(-vectors // n)),
            last=by_tiles(lambda n: -(-vectors // -(-vectors // n)) - 1),
        )

    return of_open if known is None else of_known
