"""One block of query rows over all keys: scores, softmax and weighted sum, ``keys`` at a time.

The running maximum and sum of a row, and its result so far, are rescaled whenever a later block
of keys has a larger score (Milakov and Gimelshein 2018; Dao et al. 2022), so that only
``block * keys`` scores exist at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.cpu.attention_plan import VECTORS, Plan
from burnish.targets.cpu.softmax import LOWEST, power
from burnish.targets.cpu.vectors import Block

_ZERO = loops.const(0)


def _f(value: float) -> Expr:
    return tirx.const(value, "float32")


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


def emit(
    plan: Plan, b: Expr, kv: Expr, tile: Expr, packed: tuple[Var, Var] | None, own: Scratch
) -> Stmt:
    """Block number ``tile`` of head ``kv``; ``packed`` is ``None`` to read keys where they are."""
    block = own.rows
    known = loops.as_int(plan.rows)
    count: Any = tirx.min(plan.rows - tile * block, block)
    if known is not None and known % block == 0:
        count = block

    def rows(first: Expr, count: Any) -> Stmt:
        here = Rows(plan, b, kv, first, count, own)
        return loops.named(
            lambda seen: _all_keys(here, seen, packed), seen=plan.limit(first + (count - 1))
        )

    return loops.named(rows, first=tile * block, count=count)


def _all_keys(here: Rows, seen: Any, packed: tuple[Var, Var] | None) -> Stmt:
    """Everything for a block of rows of which the last sees ``seen`` keys."""
    plan, count = here.plan, here.count
    blocks = 1 if plan.single else loops.divide(seen + (plan.keys - 1), plan.keys)[0]

    def over_keys(kb: Expr) -> Stmt:
        start = kb * plan.keys
        inside: Any = seen if plan.single else tirx.min(seen - start, plan.keys)
        return loops.named(
            lambda start, inside: _some_keys(here, kb, start, inside, packed),
            start=start,
            inside=inside,
        )

    return loops.seq(
        loops.serial(count, lambda r: _start(here, r), "r"),
        loops.serial(blocks, over_keys, "kb"),
        loops.serial(count, lambda r: _finish(here, r), "r"),
    )


def _some_keys(
    here: Rows, kb: Expr, start: Expr, inside: Any, packed: tuple[Var, Var] | None
) -> Stmt:
    score = (
        _scores_in_place(here, start, inside)
        if packed is None
        else _tiled(here, lambda r, mr: _scores(here, r, mr, kb, inside, packed[0]))
    )
    return loops.seq(
        score,
        loops.serial(here.count, lambda r: _softmax(here, r, start, inside), "r"),
        _tiled(here, lambda r, mr: _mix(here, r, mr, kb, inside, packed)),
    )


def _start(here: Rows, r: Expr) -> Stmt:
    plan = here.plan
    position, head = plan.query(here.kv, here.first + r)
    scaled = loops.vectors(
        plan.depth,
        plan.lanes,
        lambda d: loops.store(
            here.scratch.queries, plan.q[here.b, position, head, d] * _f(plan.scale), [r, d]
        ),
    )
    return loops.seq(
        scaled,
        loops.store(here.scratch.top, _f(LOWEST), [r]),
        loops.vector(plan.lanes, lambda v: loops.store(here.scratch.total, _f(0), [r, v])),
        loops.vectors(
            plan.values, plan.lanes, lambda e: loops.store(here.scratch.mixed, _f(0), [r, e])
        ),
    )


def _finish(here: Rows, r: Expr) -> Stmt:
    """The row divided by its sum; rows with no key at all become zeros."""
    plan = here.plan
    position, head = plan.query(here.kv, here.first + r)
    block = Block(plan.lanes)
    total = block.folded(block.load(here.scratch.total, [r, 0]), lambda a, c: a + c)
    block.put(here.scratch.factor, tirx.Select(total > 0, _f(1) / total, _f(0)), [r])
    return loops.seq(
        block.done(),
        loops.vectors(
            plan.values,
            plan.lanes,
            lambda e: loops.store(
                plan.out,
                here.scratch.mixed[r, e] * here.scratch.factor[r],
                [here.b, position, head, e],
            ),
        ),
    )


def _tiled(here: Rows, body: Callable[[Expr, int], Stmt]) -> Stmt:
    """``body(first row, height)`` for all rows of a block.

    The last tile may be higher than what is left: local buffers have room for that.
    """
    mr = here.plan.mr
    known = loops.as_int(here.count)
    if known is None:
        full, rest = loops.divide(here.count, mr)
        return loops.named(lambda *parts: _tiles(here, body, *parts), full=full, rest=rest)
    full, rest = loops.divide(known, mr)
    whole = loops.serial(full, lambda t: body(t * mr, mr), "t")
    tail = [body(loops.const(known - rest), rest)] if rest else []
    return loops.seq(whole, *tail)


def _tiles(here: Rows, body: Callable[[Expr, int], Stmt], full: Any, rest: Any) -> Stmt:
    mr = here.plan.mr
    whole = loops.serial(full, lambda t: loops.named(lambda r: body(r, mr), r=t * mr), "t")
    chosen = None
    for height in reversed(here.plan.tails()):
        tile = loops.named(lambda r, h=height: body(r, h), r=full * mr)
        chosen = tile if chosen is None else loops.branch(rest <= height, tile, chosen)
    return whole if chosen is None else loops.seq(whole, loops.branch(rest > 0, chosen))


def _scores(here: Rows, r: Expr, mr: int, kb: Expr, inside: Any, keys: Var) -> Stmt:
    """Products of ``mr`` rows with the panels of this block of keys that they see."""
    plan = here.plan
    if plan.causal:
        seen = plan.limit(here.first + r + (mr - 1)) - kb * plan.keys
        inside = tirx.max(tirx.min(inside, seen), 0)
    return loops.named(
        lambda inside: loops.named(
            lambda whole, rest: _panels(here, r, mr, kb, whole, rest, keys),
            whole=loops.divide(inside, plan.width)[0],
            rest=loops.divide(inside, plan.width)[1],
        ),
        inside=inside,
    )


def _panels(here: Rows, r: Expr, mr: int, kb: Expr, whole: Any, rest: Any, keys: Var) -> Stmt:
    """``whole`` panels of keys, and ``rest`` keys of the one after them."""
    plan = here.plan
    per = plan.keys // plan.width

    def tile(panel: Expr, vectors: int) -> Stmt:
        width = vectors * plan.lanes
        acc = loops.local([mr, width], "float32", "acc")

        def over(body: Callable[[Any, Any], Stmt]) -> Stmt:
            return loops.unroll(
                mr, lambda i: loops.vectors(width, plan.lanes, lambda x: body(i, x)), "i"
            )

        def step(d: Expr) -> Stmt:
            return over(
                lambda i, x: loops.store(
                    acc,
                    acc[i, x]
                    + here.scratch.queries[r + i, d]
                    * keys[here.b, here.kv, kb * per + panel, d, x],
                    [i, x],
                )
            )

        return loops.seq(
            loops.allocate(acc),
            over(lambda i, x: loops.store(acc, _f(0), [i, x])),
            loops.serial(plan.depth, step, "d"),
            over(
                lambda i, x: loops.store(
                    here.scratch.scores, acc[i, x], [r + i, panel * plan.width + x]
                )
            ),
        )

    most = plan.width // plan.lanes
    known = loops.as_int(rest)
    parts = [loops.serial(whole, lambda p: tile(p, most), "p")]
    if known is not None:
        return loops.seq(*parts, *([tile(whole, -(-known // plan.lanes))] if known else []))
    n = loops.as_int(plan.n)
    if not plan.causal and n is not None:
        choices = {-(-(n % plan.width) // plan.lanes)} - {0}
    else:
        choices = set(range(1, most + 1))
    chosen = None
    for vectors in sorted(choices, reverse=True):
        narrow = tile(whole, vectors)
        chosen = (
            narrow if chosen is None else loops.branch(rest <= vectors * plan.lanes, narrow, chosen)
        )
    if chosen is not None:
        parts.append(loops.branch(rest > 0, chosen))
    return loops.seq(*parts)


def _scores_in_place(here: Rows, start: Expr, inside: Any) -> Stmt:
    """Products of rows and keys along the depth, ``lanes`` keys at a time."""
    plan = here.plan
    lanes = plan.lanes

    def group(g: Expr) -> Stmt:
        def row(r: Expr) -> Stmt:
            block = Block(lanes)
            queries = [
                block.load(here.scratch.queries, [r, c]) for c in range(0, plan.depth, lanes)
            ]
            sums = []
            for i in range(lanes):
                key = block.name(tirx.min(start + g * lanes + i, plan.n - 1))
                total: Expr | None = None
                for c, query in enumerate(queries):
                    value = block.load(plan.k, [here.b, key, here.kv, c * lanes]) * query
                    total = value if total is None else block.name(total + value)
                assert total is not None
                sums.append(block.name(total))
            block.store(here.scratch.scores, block.sums(sums), [r, g * lanes])
            return block.done()

        return loops.serial(here.count, row, "r")

    whole, _ = loops.divide(inside + (lanes - 1), lanes)
    return loops.serial(whole, group, "g")


def _softmax(here: Rows, r: Expr, start: Expr, inside: Any) -> Stmt:
    """Scores of one row to powers, in place; its maximum, sum and factor renewed."""
    plan, lanes = here.plan, here.plan.lanes
    row = here.first + r
    mine = inside
    if plan.causal:
        mine = tirx.max(tirx.min(plan.limit(row) - start, inside), 0)
    return loops.named(
        lambda row, mine: loops.named(
            lambda whole, rest, used: _softmax_of(here, r, row, start, inside, whole, rest, used),
            whole=loops.divide(mine, lanes)[0],
            rest=loops.divide(mine, lanes)[1],
            used=loops.divide(mine + (lanes - 1), lanes)[0],
        ),
        row=row,
        mine=mine,
    )


def _softmax_of(
    here: Rows, r: Any, row: Expr, start: Expr, inside: Any, whole: Any, rest: Any, used: Any
) -> Stmt:
    """With ``whole`` vectors of keys and ``rest`` more, ``used`` vectors in all."""
    plan, lanes = here.plan, here.plan.lanes
    end = loops.times(whole, lanes)
    top = loops.local([lanes], "float32", "tops")
    biased = plan.bias is not None

    def score(x: Any) -> Expr:
        value = here.scratch.scores[r, x]
        if plan.bias is None:
            return value
        position, head = plan.query(here.kv, row)
        index = [here.b, head, position, start + x]
        where = [
            _ZERO if loops.as_int(extent) == 1 else i
            for extent, i in zip(plan.bias.shape, index, strict=True)
        ]
        return value + plan.bias[tuple(where)]

    def highest(x: Expr, v: Expr) -> Stmt:
        store = loops.store(here.scratch.scores, score(x), [r, x])
        larger = loops.store(top, tirx.max(top[v], here.scratch.scores[r, x]), [v])
        return loops.seq(store, larger) if biased else larger

    def last(v: Expr) -> Stmt:
        hidden = tirx.Select(v < rest, here.scratch.scores[r, end + v], _f(float("-inf")))
        return loops.seq(
            loops.store(here.scratch.scores, hidden, [r, end + v]),
            loops.store(top, tirx.max(top[v], here.scratch.scores[r, end + v]), [v]),
        )

    partial = loops.seq(
        *(
            [
                loops.serial(
                    rest, lambda x: loops.store(here.scratch.scores, score(end + x), [r, end + x])
                )
            ]
            if biased
            else []
        ),
        loops.vector(lanes, last),
    )
    known = loops.as_int(rest)
    if known == 0:
        partial = tirx.Evaluate(_ZERO)
    elif known is None:
        partial = loops.branch(rest > 0, partial)
    block = Block(lanes)
    found = block.folded(block.load(top, [0]), tirx.max)
    new = block.name(tirx.max(found, here.scratch.top[r]))
    if not plan.single:
        block.put(here.scratch.factor, power(here.scratch.top[r] - new), [r])
    block.put(here.scratch.top, new, [r])
    if not plan.single:
        share = here.scratch.factor[r]
        before = loops.vector(
            lanes,
            lambda v: loops.store(here.scratch.total, here.scratch.total[r, v] * share, [r, v]),
        )
        block.statements.append(before)

    def raised(c: Expr) -> Stmt:
        def lane(v: Expr) -> Stmt:
            x = c * lanes + v
            return loops.seq(
                loops.store(
                    here.scratch.scores,
                    power(here.scratch.scores[r, x] - here.scratch.top[r]),
                    [r, x],
                ),
                loops.store(
                    here.scratch.total, here.scratch.total[r, v] + here.scratch.scores[r, x], [r, v]
                ),
            )

        return loops.vector(lanes, lane)

    parts = [
        loops.allocate(top),
        loops.vector(lanes, lambda v: loops.store(top, _f(LOWEST), [v])),
        loops.serial(
            whole, lambda c: loops.vector(lanes, lambda v: highest(c * lanes + v, v)), "c"
        ),
        partial,
        block.done(),
        loops.serial(used, raised, "c"),
    ]
    if plan.causal:
        # A tile reads as many keys as its last row sees.
        all_used, _ = loops.divide(inside + (lanes - 1), lanes)
        parts.append(
            loops.serial(
                tirx.max(all_used - used, 0),
                lambda c: loops.vector(
                    lanes,
                    lambda v: loops.store(here.scratch.scores, _f(0), [r, (used + c) * lanes + v]),
                ),
                "c",
            )
        )
    return loops.seq(*parts)


def _mix(
    here: Rows, r: Expr, mr: int, kb: Expr, inside: Any, packed: tuple[Var, Var] | None
) -> Stmt:
    """Values weighted by the powers of ``mr`` rows, added to what there is."""
    plan = here.plan
    if plan.causal:
        last = tirx.min(r + (mr - 1), here.count - 1)
        inside = tirx.max(tirx.min(inside, plan.limit(here.first + last) - kb * plan.keys), 0)
    return loops.named(lambda inside: _weighted(here, r, mr, kb, inside, packed), inside=inside)


def _weighted(
    here: Rows, r: Expr, mr: int, kb: Expr, inside: Any, packed: tuple[Var, Var] | None
) -> Stmt:
    plan = here.plan
    chunks = -(-plan.values // (VECTORS * plan.lanes))
    vectors = -(-plan.values // plan.lanes)
    size = -(-vectors // chunks) * plan.lanes

    def chunk(e0: int) -> Stmt:
        width = min(size, plan.values - e0)
        acc = loops.local([mr, width], "float32", "acc")

        def over(body: Callable[[Any, Any], Stmt]) -> Stmt:
            return loops.unroll(
                mr, lambda i: loops.vectors(width, plan.lanes, lambda e: body(i, e)), "i"
            )

        def value(x: Expr, e: Expr) -> Expr:
            key = kb * plan.keys + x
            if packed is None:
                return plan.v[here.b, key, here.kv, e0 + e]
            return packed[1][here.b, here.kv, key, e0 + e]

        def step(x: Expr) -> Stmt:
            return over(
                lambda i, e: loops.store(
                    acc, acc[i, e] + here.scratch.scores[r + i, x] * value(x, e), [i, e]
                )
            )

        def join(i: Expr, e: Expr) -> Stmt:
            before = here.scratch.mixed[r + i, e0 + e]
            if not plan.single:
                before = before * here.scratch.factor[r + i]
            new = acc[i, e] if plan.single else before + acc[i, e]
            return loops.store(here.scratch.mixed, new, [r + i, e0 + e])

        return loops.seq(
            loops.allocate(acc),
            over(lambda i, e: loops.store(acc, _f(0), [i, e])),
            loops.serial(inside, step, "x"),
            over(join),
        )

    return loops.seq(*[chunk(c * size) for c in range(chunks)])
