"""Rule for attention on a device with work groups and no matrix units: no score leaves its group.

1. A group has one head of keys and a block of its rows (queries; those of several heads, where
   they share keys). It goes over the keys a block at a time, with a running maximum and sum of
   each row; what was summed is rescaled when the maximum grows (FlashAttention, Dao et al.,
   arXiv:2205.14135).
2. Many rows: queries and a block of keys, then of values, lie in local memory; scores and sums
   are tiles of registers.
3. Few rows (decoding): each work item takes a key of the block where it lies in memory, then a
   column of the values and a part of the block's keys; the parts are added at the end. Groups
   of a warp's size and less are not assumed to run together: there is a barrier at each step.
4. All sums are float32, whatever the operands are.
5. Blocks of keys that a causal mask hides from all rows are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets import attention_form as form
from burnish.targets.attention_form import Attention, BlockRows, Sizes, wide
from burnish.targets.cpu import loops

_ACROSS = 16
"""Work items along the keys, or the columns of values, of a tile."""
_MOST_SUMS = 64
"""Registers of a work item for sums."""
_LEAST_DEPTH = 2
"""A product alone, with no loop: PoCL 3.1 was seen to run it wrongly in a loop of open length."""
FEW_ROWS = 4


@dataclass(frozen=True)
class Block:
    """Rows and keys that a group of ``items`` works on at a time; ``direct`` is part 3."""

    rows: int
    keys: int
    items: int
    direct: bool = False

    @property
    def segments(self) -> int:
        """Items that share a row's softmax."""
        return min(self.items // self.rows, _ACROSS)

    def local_memory(self, sizes: Sizes) -> int:
        """Bytes of a group."""
        floats = self.rows * (sizes.depth + self.keys + 1 + 2 * self.segments + 2)
        if self.direct:
            return 4 * (floats + self.items * self.rows)
        return 4 * (floats + self.keys * (max(sizes.depth, sizes.values) + 1))

    def sums(self, sizes: Sizes) -> int:
        """Registers of an item for the weighted sum."""
        if self.direct:
            return self.rows * -(-sizes.values // self.items)
        return self.rows * _ACROSS // self.items * -(-sizes.values // _ACROSS)


BLOCKS = (
    Block(64, 32, 128),
    Block(32, 32, 128),
    Block(16, 32, 128),
    Block(16, 16, 128),
    Block(8, 16, 128),
)
"""By preference; not measured on a GPU."""


@dataclass(frozen=True)
class Limits:
    """Of a device: work items and bytes of local memory a group may have, groups it wants."""

    items: int
    local_memory: int
    groups: int


def choose_block(sizes: Sizes, limits: Limits) -> Block | None:
    """The first block that fits and gives enough groups; else the smallest that fits."""
    if sizes.depth < _LEAST_DEPTH:
        return None
    rows = loops.as_int(sizes.rows)
    known = [block for block in BLOCKS if rows is None or rows > 16 or block.rows <= 16]
    if rows is not None and rows <= FEW_ROWS:
        few = min(limits.items, 256)
        known = [Block(1 << (rows - 1).bit_length(), few, few, direct=True)]
    fitting = [
        block
        for block in known
        if block.local_memory(sizes) <= limits.local_memory
        and block.items <= limits.items
        and block.sums(sizes) <= _MOST_SUMS
    ]
    for block in fitting:
        groups = loops.as_int(
            loops.product([sizes.batch, sizes.key_heads, form.up(sizes.rows, block.rows)])
        )
        if groups is None or groups >= limits.groups:
            return block
    return fitting[-1] if fitting else None


def emit(func: tirx.PrimFunc, limits: Limits) -> tirx.PrimFunc | None:
    """The kernel of an attention, or ``None`` for another function and one that does not fit."""
    attention = form.read(func)
    if attention is None:
        return None
    block = choose_block(attention.sizes, limits)
    if block is None:
        return None
    return func.with_body(_Kernel(attention, block).launched()).with_attr("s_tir", True)


class _Kernel:
    """Builds the body: ``attention`` by groups of ``block``."""

    def __init__(self, attention: Attention, block: Block) -> None:
        self.attention, self.block = attention, block
        sizes = attention.sizes
        self.segments, self.turns = block.segments, block.keys // block.segments
        self.rows = _Shared("queries", block.rows, sizes.depth)
        self.scores = _Shared("scores", block.rows, block.keys + 1)
        self.parts = [_Shared(name, block.rows, self.segments) for name in ("tops", "sums")]
        self.shrink = _Shared("shrink", block.rows, 1)
        self.weight = _Shared("weight", block.rows, 1)
        self.tile = _Shared("tile", block.keys, max(sizes.depth, sizes.values) + 1)
        self.spread = _Shared("spread", block.items, block.rows)
        self.mine = loops.local((self.turns,), "float32", "mine")
        self.top, self.new, self.share, self.value = (
            loops.local((1,), "float32", name) for name in ("top", "new_top", "share", "value")
        )
        if block.direct:
            self.down, self.across = 1, block.items
            self.columns = -(-sizes.values // block.items)
            # Keys of a block are shared out where there are more items than columns.
            self.splits = min(8, max(1, block.items // sizes.values))
        else:
            self.down, self.across = block.items // _ACROSS, _ACROSS
            self.columns, self.splits = -(-sizes.values // _ACROSS), 1
        self.tall = block.rows // self.down
        self.mixed = loops.local((self.tall, self.columns), "float32", "mixed")

    def launched(self) -> Stmt:
        sizes, block = self.attention.sizes, self.block
        tiles = form.up(sizes.rows, block.rows)
        count = loops.product([sizes.batch, sizes.key_heads, tiles])

        def group(place: Expr, item: Expr) -> Stmt:
            if self.attention.causal:
                # The last rows see most keys: they go first.
                place = count - 1 - place
            rest, tile = loops.split_two(place, tiles)
            batch, head = loops.split_two(rest, sizes.key_heads)
            return loops.named(
                lambda batch, head, start, rows: self._group(batch, head, start, rows, item),
                batch=batch,
                head=head,
                start=tile * block.rows,
                # A group is launched even of none.
                rows=tirx.Select(
                    tirx.all(place >= 0, place < count), wide(sizes.rows), loops.const(0)
                ),
            )

        return form.launched({"blockIdx.x": count, "threadIdx.x": block.items}, group)

    def _group(self, batch: Any, head: Any, start: Any, rows: Any, item: Expr) -> Stmt:
        sizes, block = self.attention.sizes, self.block
        steps = wide(form.up(sizes.keys, block.keys))
        if self.attention.causal:
            last = tirx.min(rows, wide(start) + block.rows) - 1
            seen = self.attention.last_key(tirx.floordiv(last, sizes.group)) + 1
            steps = tirx.min(steps, tirx.floordiv(tirx.max(seen, 0) + block.keys - 1, block.keys))
        steps = tirx.Select(rows > 0, steps, loops.const(0))
        where = _Where(batch, head, start, rows, item)

        def step(at: Any) -> Stmt:
            return loops.named(lambda first: self._step(where, first), first=at * block.keys)

        buffers = [self.rows, self.scores, *self.parts, self.shrink, self.weight]
        buffers += [self.spread] if block.direct else [self.tile]
        zero = tirx.const(0.0, "float32")
        return loops.seq(
            *(loops.allocate(shared.buffer) for shared in buffers),
            *map(loops.allocate, (self.mine, self.mixed, self.top, self.new)),
            *map(loops.allocate, (self.share, self.value)),
            self._queries(where),
            self._each(lambda i, j: loops.store(self.mixed, zero, [i, j])),
            loops.store(self.top, form.LEAST, [_i(0)]),
            loops.store(self.share, zero, [_i(0)]),
            form.barrier(),
            loops.named(lambda count: loops.serial(count, step, "step"), steps=steps),
            self._finish(where),
        )

    def _each(self, body: Callable[[Any, Any], Stmt]) -> Stmt:
        """Over the sums of an item: its rows and columns."""
        return _unroll(self.tall, lambda i: _unroll(self.columns, lambda j: body(i, j)))

    def _copy(self, extent: int, item: Expr, body: Callable[[Expr], Stmt]) -> Stmt:
        """Elements of a tile in turns of all items."""
        items = self.block.items

        def turn(at: Any) -> Stmt:
            flat = at * items + item
            whole = extent % items == 0
            return body(flat) if whole else loops.branch(flat < extent, body(flat))

        return loops.serial(_i(-(-extent // items)), turn, "copy")

    def _queries(self, where: _Where) -> Stmt:
        attention, sizes = self.attention, self.attention.sizes

        def element(flat: Expr) -> Stmt:
            row, column = tirx.floordiv(flat, sizes.depth), tirx.floormod(flat, sizes.depth)
            query, head = where.query(row, sizes)
            value = form.as_float32(attention.q[(wide(where.batch), query, head, wide(column))])
            value = value * tirx.const(attention.scale, "float32")
            return self.rows.put(row, column, _where(where.exists(row), value))

        return self._copy(self.block.rows * sizes.depth, where.item, element)

    def _load(self, where: _Where, source: Var, width: int, first: Any) -> Stmt:
        def element(flat: Expr) -> Stmt:
            row, column = tirx.floordiv(flat, width), tirx.floormod(flat, width)
            key = wide(first) + row
            value = source[(wide(where.batch), key, wide(where.head), wide(column))]
            exists = key < wide(self.attention.sizes.keys)
            return self.tile.put(row, column, _where(exists, form.as_float32(value)))

        return self._copy(self.block.keys * width, where.item, element)

    def _step(self, where: _Where, first: Any) -> Stmt:
        sizes, attention = self.attention.sizes, self.attention
        if self.block.direct:
            before, between = [], []
        else:
            before = [self._load(where, attention.k, sizes.depth, first), form.barrier()]
            between = [self._load(where, attention.v, sizes.values, first)]
        return loops.seq(
            *before,
            self._dots(where, first),
            form.barrier(),
            *between,
            self._tops(where),
            form.barrier(),
            self._powers(where),
            form.barrier(),
            self._mix(where, first),
            form.barrier(),
        )

    def _dots(self, where: _Where, first: Any) -> Stmt:
        """A tile of scores, to local memory."""
        attention, sizes, block = self.attention, self.attention.sizes, self.block
        wide_tile = block.keys // self.across
        down, across = (
            tirx.floordiv(where.item, self.across),
            tirx.floormod(where.item, self.across),
        )
        dots = loops.local((self.tall, wide_tile), "float32", "dots")

        def row(i: Any) -> Expr:
            return i * self.down + down

        def column(j: Any) -> Expr:
            return j * self.across + across

        def each(body: Callable[[Any, Any], Stmt]) -> Stmt:
            return _unroll(self.tall, lambda i: _unroll(wide_tile, lambda j: body(i, j)))

        def key_at(j: Any, d: Any) -> Expr:
            if not block.direct:
                return self.tile.at(column(j), d)
            # One past the end is read as the last: its score is hidden.
            key = tirx.min(wide(first) + column(j), wide(sizes.keys) - 1)
            return form.as_float32(attention.k[(wide(where.batch), key, wide(where.head), wide(d))])

        def term(d: Any) -> Stmt:
            return each(
                lambda i, j: loops.store(
                    dots, dots[(i, j)] + self.rows.at(row(i), d) * key_at(j, d), [i, j]
                )
            )

        def give(i: Any, j: Any) -> Stmt:
            key = wide(first) + column(j)
            query, head = where.query(row(i), sizes)
            exists = tirx.all(where.exists(row(i)), key < wide(sizes.keys))
            value = attention.masked(dots[(i, j)], where.batch, head, query, key)
            return self.scores.put(row(i), column(j), tirx.if_then_else(exists, value, form.LEAST))

        zero = tirx.const(0.0, "float32")
        return loops.seq(
            loops.allocate(dots),
            each(lambda i, j: loops.store(dots, zero, [i, j])),
            loops.serial(_i(sizes.depth), term, "d"),
            each(give),
        )

    def _segment(self, where: _Where) -> tuple[Expr, Expr]:
        return tirx.floordiv(where.item, self.segments), tirx.floormod(where.item, self.segments)

    def _with_row(self, where: _Where, body: Stmt) -> Stmt:
        """For items that share in a row's softmax."""
        used = self.block.rows * self.segments
        return body if used == self.block.items else _if(where.item < used, body)

    def _tops(self, where: _Where) -> Stmt:
        """Takes an item's scores: from here on the memory is for their powers."""
        row, segment = self._segment(where)
        top = self.new[(_i(0),)]

        def one(at: Any) -> Stmt:
            return loops.seq(
                loops.store(self.mine, self.scores.at(row, at * self.segments + segment), [at]),
                loops.store(self.new, tirx.max(top, self.mine[(at,)]), [_i(0)]),
            )

        body = loops.seq(
            loops.store(self.new, form.LEAST, [_i(0)]),
            _unroll(self.turns, one),
            self.parts[0].put(row, segment, top),
        )
        return self._with_row(where, body)

    def _powers(self, where: _Where) -> Stmt:
        """Each item keeps the sum of its own segments."""
        row, segment = self._segment(where)
        at0 = [_i(0)]
        top, new, share, value = (
            buffer[(_i(0),)] for buffer in (self.top, self.new, self.share, self.value)
        )

        def one(at: Any) -> Stmt:
            return loops.seq(
                loops.store(self.value, form.power(self.mine[(at,)], form.finite(new)), at0),
                loops.store(self.share, share + value, at0),
                self.scores.put(row, at * self.segments + segment, value),
            )

        body = loops.seq(
            loops.store(self.new, top, at0),
            loops.serial(
                _i(self.segments),
                lambda s: loops.store(self.new, tirx.max(new, self.parts[0].at(row, s)), at0),
                "s",
            ),
            loops.store(self.value, form.power(top, form.finite(new)), at0),
            loops.store(self.share, share * value, at0),
            _if(segment.equal(0), self.shrink.put(row, _i(0), value)),
            _unroll(self.turns, one),
            loops.store(self.top, new, at0),
        )
        return self._with_row(where, body)

    def _place(self, where: _Where) -> tuple[Expr, Expr, Expr]:
        """An item's first row, first column, and part of the keys, of the weighted sum."""
        if not self.block.direct:
            down = tirx.floordiv(where.item, self.across)
            return down, tirx.floormod(where.item, self.across), _i(0)
        if self.splits == 1:
            return _i(0), where.item, _i(0)
        values = self.attention.sizes.values
        return _i(0), tirx.floormod(where.item, values), tirx.floordiv(where.item, values)

    def _mix(self, where: _Where, first: Any) -> Stmt:
        attention, sizes, block = self.attention, self.attention.sizes, self.block
        down, column, split = self._place(where)
        stride = self.across if self.splits == 1 else 0

        def row(i: Any) -> Expr:
            return i * self.down + down

        def value(t: Any, j: Any) -> Expr:
            at = column + j * stride
            inside = at < sizes.values
            if not block.direct:
                found = self.tile.at(t, at)
                return found if sizes.values % _ACROSS == 0 else _where(inside, found)
            key = wide(first) + t
            found = form.as_float32(
                attention.v[(wide(where.batch), key, wide(where.head), wide(at))]
            )
            return _where(tirx.all(inside, key < wide(sizes.keys)), found)

        def term(at: Any) -> Stmt:
            t = at * self.splits + split
            put = self._each(
                lambda i, j: loops.store(
                    self.mixed, self.mixed[(i, j)] + self.scores.at(row(i), t) * value(t, j), [i, j]
                )
            )
            return put if block.keys % self.splits == 0 else _if(t < block.keys, put)

        shrink = self._each(
            lambda i, j: loops.store(
                self.mixed, self.mixed[(i, j)] * self.shrink.at(row(i), _i(0)), [i, j]
            )
        )
        body = loops.seq(shrink, loops.serial(_i(-(-block.keys // self.splits)), term, "t"))
        used = self.splits * sizes.values
        return body if self.splits == 1 or used == block.items else _if(where.item < used, body)

    def _finish(self, where: _Where) -> Stmt:
        """Sums of a row's segments, sums of the parts of keys, and the quotient to memory."""
        attention, sizes, block = self.attention, self.attention.sizes, self.block
        row, segment = self._segment(where)
        sums, at0 = self.parts[1], _i(0)
        total = self.value[(at0,)]
        give = self._with_row(where, sums.put(row, segment, self.share[(at0,)]))
        add = loops.seq(
            loops.store(self.value, tirx.const(0.0, "float32"), [at0]),
            loops.serial(
                _i(self.segments),
                lambda s: loops.store(self.value, total + sums.at(row, s), [at0]),
                "s",
            ),
            _if(segment.equal(0), self.weight.put(row, at0, total)),
        )
        add = self._with_row(where, add)
        dtype = str(attention.out.dtype)

        def put(i: Any, column: Any, value: Expr) -> Stmt:
            query, head = where.query(i, sizes)
            mean = form.quotient(value, self.weight.at(i, at0))
            mean = mean if dtype == "float32" else mean.astype(dtype)
            index = [wide(where.batch), query, head, wide(column)]
            inside = tirx.all(where.exists(i), column < sizes.values)
            return loops.branch(inside, loops.store(attention.out, mean, index))

        down, column, _ = self._place(where)
        if self.splits == 1:
            written = self._each(
                lambda i, j: put(i * self.down + down, column + j * self.across, self.mixed[(i, j)])
            )
            return loops.seq(give, form.barrier(), add, form.barrier(), written)
        spread = _unroll(
            block.rows,
            lambda i: self.spread.put(where.item, i, self.mixed[(i, at0)]),
        )

        def gathered(i: Any) -> Stmt:
            parts = [self.spread.at(where.item + s * sizes.values, i) for s in range(self.splits)]
            whole: Any = parts[0]
            for part in parts[1:]:
                whole = whole + part
            return put(i, where.item, whole)

        written = loops.branch(where.item < sizes.values, _unroll(block.rows, gathered))
        return loops.seq(give, spread, form.barrier(), add, form.barrier(), written)


@dataclass(frozen=True)
class _Where(BlockRows):
    """A group's rows, and the item in the group."""

    item: Expr


class _Shared:
    """Rows of float32 in local memory; in one axis, for TVM would take padding off."""

    def __init__(self, name: str, rows: int, stride: int) -> None:
        self.stride = stride
        self.buffer = tirx.decl_buffer((rows * stride,), "float32", name, scope="shared")

    def at(self, row: Any, column: Any) -> Expr:
        return self.buffer[(row * self.stride + column,)]

    def put(self, row: Any, column: Any, value: Expr) -> Stmt:
        return loops.store(self.buffer, value, [row * self.stride + column])


def _i(value: int) -> Expr:
    return tirx.const(value, "int32")


def _unroll(extent: int, body: Callable[[Any], Stmt]) -> Stmt:
    return loops.unroll(_i(extent), body)


def _where(condition: Expr, value: Expr) -> Expr:
    """``value`` where it exists, else 0; it is not read there."""
    return tirx.if_then_else(condition, value, tirx.const(0.0, "float32"))


def _if(condition: Expr, then: Stmt) -> Stmt:
    return loops.branch(condition, then)
