"""Attention on tensor cores, in one kernel: no score leaves the registers.

After FlashAttention-2 (Dao, arXiv:2307.08691), of two-byte floats with sums of float32:

1. A block of threads has one head of keys and ``16 * down`` of its rows a warp (queries; those of
   several heads, where they share keys). It goes over the keys a tile at a time, with a running
   maximum and sum of each row; what was summed is rescaled when the maximum grows.
2. A row of sums lies in four neighbouring threads, in the places where the next product wants its
   left operand: powers of scores are rounded where they are, and multiply the values.
3. Few rows (decoding): several warps have the same rows and share out the keys of a tile; what
   each has found is joined at the end, in shared memory.
4. From sm_80 on, keys of the next tile and values of this one are copied while others are worked
   on. A row of shared memory is 16 bytes longer than its content, so that the eight rows that
   ``ldmatrix`` reads at once lie in different banks.
5. Tiles of keys that a causal mask hides from all rows are not read; masks are looked at only in
   tiles that have them.

Ours differs in reading shared heads as rows of one head, and in part 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets import attention_form as form
from burnish.targets.attention_form import Attention, BlockRows, Sizes, wide
from burnish.targets.cpu import loops
from burnish.targets.cuda.fragments import SIZE, WARP, Matrix
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.cuda.warps import Block, Memory, Registers, allocated, i32, unroll
from burnish.targets.gpu.launch import rolled

Index = Callable[[Any, Any], tuple[Any, ...]]
PerRow = Callable[[Any], Expr]
_SINCE = {"float16": 75, "bfloat16": 80}
_PAD = 8
"""Elements that a row of shared memory is longer than its content: 16 bytes."""
_ENOUGH = 100
"""Blocks that keep a large GPU busy."""
_IN_REGISTERS = 128
"""Elements of a query up to which they are kept in registers."""
_MOST = 256
"""Elements of a query and a value."""


@dataclass(frozen=True)
class Tile:
    """Warps along rows and along keys, pieces of 16 rows a warp, and keys of a tile."""

    warps: tuple[int, int]
    down: int
    keys: int

    @property
    def rows(self) -> int:
        """Of a block."""
        return SIZE * self.warps[0] * self.down

    @property
    def across(self) -> int:
        """Pieces of 16 keys that a warp has of a tile."""
        return self.keys // SIZE // self.warps[1]

    def shared_memory(self, sizes: Sizes) -> int:
        """Bytes of a block, at most."""
        depth, values = _padded(sizes.depth) + _PAD, _padded(sizes.values) + _PAD
        operands = 2 * (self.rows * depth + self.keys * (depth + values))
        split = self.warps[1]
        joined = 4 * split * self.rows * (_padded(sizes.values) + 4 + 2) if split > 1 else 0
        return operands + joined + 4 * self.rows

    def at_once(self, sizes: Sizes, target: CudaTarget) -> int:
        """Blocks that a multiprocessor holds: its shared memory does, and registers suffice."""
        threads = WARP * self.warps[0] * self.warps[1]
        room = _REGISTERS // (threads * (self.registers(sizes) + _WORKING))
        return max(1, min(room, target.shared_memory // self.shared_memory(sizes)))

    def registers(self, sizes: Sizes) -> int:
        """Of a thread, that are held throughout: sums, scores, queries."""
        queries = _padded(sizes.depth) // 4 if _kept(sizes) else 4
        return self.down * (_padded(sizes.values) // 2 + 8 * self.across + queries)


LARGE = (Tile((4, 1), 2, 64), Tile((4, 1), 1, 64), Tile((4, 1), 1, 32))
SMALL = (Tile((2, 2), 1, 64), Tile((2, 1), 1, 32))
FEW = (Tile((1, 4), 1, 128), Tile((1, 4), 1, 64), Tile((1, 2), 1, 32))
"""Of many rows, of too few for many blocks, and of up to 16; not measured on a GPU."""
_HELD = 168
"""Registers that may be held throughout, of 255: with 176, kernels spill."""
_WORKING = 96
"""Registers beside those, at most: with room for 64, kernels spill."""
_REGISTERS = 65536
"""Of a multiprocessor, on every architecture."""


def choose_tile(sizes: Sizes, target: CudaTarget) -> Tile | None:
    """``None`` where tensor cores cannot take the sizes."""
    if target.capability < _SINCE.get(sizes.dtype, 1000):
        return None
    if max(sizes.depth, sizes.values) > _MOST:
        return None
    rows = loops.as_int(sizes.rows)
    known = FEW if rows is not None and rows <= SIZE else (*LARGE, *SMALL)
    fitting = [
        tile
        for tile in known
        if tile.shared_memory(sizes) <= target.shared_memory and tile.registers(sizes) <= _HELD
    ]
    for tile in fitting:
        tiles = form.up(sizes.rows, tile.rows)
        blocks = loops.as_int(loops.product([sizes.batch, sizes.key_heads, tiles]))
        if known is FEW or blocks is None or blocks >= _ENOUGH:
            return tile
    return fitting[-1] if fitting else None


def emit(attention: Attention, tile: Tile, target: CudaTarget, *, described: bool) -> Stmt:
    """The kernel's body; ``described``, one that a CPU runs."""
    return _Kernel(attention, tile, target, described).launched()


class _Kernel:
    def __init__(
        self, attention: Attention, tile: Tile, target: CudaTarget, described: bool
    ) -> None:
        self.attention, self.tile, self.sizes = attention, tile, attention.sizes
        self.at_once = tile.at_once(attention.sizes, target)
        sizes, dtype = attention.sizes, attention.sizes.dtype
        matrix = Matrix(dtype, target.capability)
        self.depth, self.values = _padded(sizes.depth), _padded(sizes.values)
        down, across = tile.warps
        whole = sizes.depth % 8 == 0 and sizes.values % 8 == 0
        self.pipelined = target.capability >= 80 and whole
        self.block = block = Block(
            matrix, down * across, described=described, asynchronous=self.pipelined
        )
        self.queries = Memory(block, "queries", dtype, tile.rows, self.depth + _PAD)
        self.keys = Memory(block, "keys", dtype, tile.keys, self.depth + _PAD)
        self.mixed_in = Memory(block, "values", dtype, tile.keys, self.values + _PAD)
        self.kept = _kept(sizes)
        pieces = self.depth // SIZE if self.kept else 1
        self.left = Registers(block, "left", dtype, tile.down * pieces * 8)
        self.right = Registers(block, "right", dtype, 8)
        self.powers = Registers(block, "powers", dtype, tile.down * tile.across * 8)
        self.scores = Registers(block, "scores", "float32", tile.down * tile.across * 8)
        self.mixed = Registers(block, "mixed", "float32", tile.down * self.values // SIZE * 8)
        self.top, self.new, self.share, self.other = (
            Registers(block, name, "float32", tile.down * 2)
            for name in ("top", "new_top", "share", "other")
        )
        joined = across * tile.rows
        self.tops = Memory(block, "tops", "float32", joined, 1)
        self.sums = Memory(block, "sums", "float32", joined, 1)
        self.parts = Memory(block, "parts", "float32", joined, self.values + 4)

    def launched(self) -> Stmt:
        sizes, tile = self.sizes, self.tile
        tiles = form.up(sizes.rows, tile.rows)
        count = loops.product([sizes.batch, sizes.key_heads, tiles])

        def block(place: Any) -> Stmt:
            if self.attention.causal:
                # The last rows see most keys: they go first.
                place = count - 1 - place
            rest, at = loops.split_two(place, tiles)
            batch, head = loops.split_two(rest, sizes.key_heads)
            inside = tirx.all(place >= 0, place < count)
            return loops.named(
                lambda batch, head, start, rows: self._block(BlockRows(batch, head, start, rows)),
                batch=batch,
                head=head,
                start=at * tile.rows,
                # A block is launched even of none.
                rows=tirx.Select(inside, wide(sizes.rows), loops.const(0)),
            )

        return self.block.launched(count, block, self.at_once)

    def _block(self, where: BlockRows) -> Stmt:
        tile, sizes, block = self.tile, self.sizes, self.block
        steps: Any = wide(form.up(sizes.keys, tile.keys))
        if self.attention.causal:
            last = tirx.min(where.rows, wide(where.start) + tile.rows) - 1
            seen = self.attention.last_key(tirx.floordiv(last, sizes.group)) + 1
            steps = tirx.min(steps, tirx.floordiv(tirx.max(seen, 0) + tile.keys - 1, tile.keys))
        steps = tirx.Select(where.rows > 0, steps, loops.const(0))
        memory = [self.queries, self.keys, self.mixed_in]
        if tile.warps[1] > 1:
            memory += [self.tops, self.sums, self.parts]
        registers = [self.left, self.right, self.powers, self.scores, self.mixed]
        zero = tirx.const(0.0, "float32")
        start = block.each(
            lambda w, lane: loops.seq(
                unroll(self.mixed.held, lambda e: self.mixed.put(w, lane, e, zero)),
                unroll(self.top.held, lambda e: self.top.put(w, lane, e, form.LEAST)),
                unroll(self.share.held, lambda e: self.share.put(w, lane, e, zero)),
            )
        )

        def step(steps: Any) -> Stmt:
            ahead = loops.branch(steps > 0, self._copy_keys(where, loops.const(0)))
            return loops.seq(
                *([block.copies(ahead)] if self.pipelined else []),
                rolled(
                    steps,
                    lambda at: loops.named(
                        lambda first: self._step(where, first, at + 1 < steps),
                        first=at * tile.keys,
                    ),
                    "step",
                ),
            )

        return loops.seq(
            *allocated(*memory, *registers, self.top, self.new, self.share, self.other),
            self._copy_queries(where),
            start,
            *([block.barrier(), self._take_queries()] if self.kept else []),
            loops.named(step, steps=steps),
            self._finish(where),
        )

    # -- copies ------------------------------------------------------------------------------

    def _copy(
        self, to: Memory, rows: int, source: Var, width: int, index: Any, exists: Any
    ) -> Stmt:
        """``rows`` of ``width`` elements, padded with zeros to whole pieces."""
        vector = math.gcd(width, 8)
        line = _padded(width) // vector
        threads = self.block.warps * WARP
        total = rows * line
        zero = tirx.const(0, self.sizes.dtype)

        def chunk(flat: Any) -> Stmt:
            row, column = tirx.floordiv(flat, line), tirx.floormod(flat, line) * vector
            inside = exists(row)
            if _padded(width) != width:
                inside = tirx.all(inside, column < width)
            return loops.vector(
                vector,
                lambda v: to.put(
                    row,
                    column + v.astype("int32"),
                    tirx.if_then_else(inside, source[index(row, wide(column) + v)], zero),
                ),
            )

        def element(flat: Any) -> Stmt:
            if vector > 1:
                return chunk(flat)
            row, column = tirx.floordiv(flat, line), tirx.floormod(flat, line)
            inside = tirx.all(exists(row), column < width)
            value = tirx.if_then_else(inside, source[index(row, wide(column))], zero)
            return to.put(row, column, value)

        def turn(warp: Any, lane: Any) -> Stmt:
            def one(at: Any) -> Stmt:
                flat = (at * self.block.warps + warp) * WARP + lane
                whole = total % threads == 0
                return element(flat) if whole else loops.branch(flat < total, element(flat))

            most = 16 if self.pipelined else 4  # what is copied goes through registers
            times, rest = divmod(-(-total // threads), most)
            return loops.seq(
                rolled(i32(times), lambda t: unroll(most, lambda u: one(t * most + u)), "turn"),
                unroll(rest, lambda u: one(u + times * most)),
            )

        return self.block.each(turn)

    def _copy_queries(self, where: BlockRows) -> Stmt:
        def index(row: Any, column: Any) -> tuple[Any, ...]:
            query, head = where.query(row, self.sizes)
            return wide(where.batch), query, head, column

        source, depth = self.attention.q, self.sizes.depth
        return self._copy(self.queries, self.tile.rows, source, depth, index, where.exists)

    def _copy_keys(self, where: BlockRows, first: Any) -> Stmt:
        return self._copy_tile(where, first, self.keys, self.attention.k, self.sizes.depth)

    def _copy_values(self, where: BlockRows, first: Any) -> Stmt:
        return self._copy_tile(where, first, self.mixed_in, self.attention.v, self.sizes.values)

    def _copy_tile(self, where: BlockRows, first: Any, to: Memory, source: Var, width: int) -> Stmt:
        def index(row: Any, column: Any) -> tuple[Any, ...]:
            return wide(where.batch), wide(first) + row, wide(where.head), column

        def exists(row: Any) -> Expr:
            return wide(first) + row < wide(self.sizes.keys)

        return self._copy(to, self.tile.keys, source, width, index, exists)

    # -- a tile of keys ----------------------------------------------------------------------

    def _step(self, where: BlockRows, first: Any, more: Any) -> Stmt:
        block, tile = self.block, self.tile
        if not self.pipelined:
            return loops.seq(
                self._copy_keys(where, first),
                self._copy_values(where, first),
                block.barrier(),
                self._score(),
                self._softmax(where, first),
                self._mix(),
                block.barrier(),
            )
        following = loops.branch(more, self._copy_keys(where, first + tile.keys))
        return loops.seq(
            block.copies(self._copy_values(where, first)),
            block.wait(1),
            self._score(),
            block.barrier(),
            block.copies(following),
            self._softmax(where, first),
            block.wait(1),
            self._mix(),
            block.barrier(),
        )

    def _row(self, piece: Any) -> Callable[[Any], Any]:
        """First row of a warp's piece."""
        return lambda warp: (
            (tirx.floordiv(warp, self.tile.warps[1]) * self.tile.down + piece) * SIZE
        )

    def _key(self, piece: Any) -> Callable[[Any], Any]:
        """First key of a warp's piece, in the tile."""
        split = self.tile.warps[1]
        return lambda warp: (tirx.floormod(warp, split) * self.tile.across + piece) * SIZE

    def _take_queries(self) -> Stmt:
        pieces = self.depth // SIZE
        return unroll(
            self.tile.down,
            lambda p: unroll(
                pieces,
                lambda d: self.block.load_a(
                    self.left, (p * pieces + d) * 8, self.queries, self._row(p), d * SIZE
                ),
            ),
        )

    def _score(self) -> Stmt:
        block, tile = self.block, self.tile
        pieces = self.depth // SIZE
        zero = tirx.const(0.0, "float32")

        def left(p: Any, d: Any) -> Any:
            return (p * pieces + d) * 8 if self.kept else p * 8

        def deep(d: Any) -> Stmt:
            again = (
                []
                if self.kept
                else [
                    unroll(
                        tile.down,
                        lambda p: block.load_a(
                            self.left, p * 8, self.queries, self._row(p), d * SIZE
                        ),
                    )
                ]
            )
            return loops.seq(
                *again,
                unroll(
                    tile.across,
                    lambda j: loops.seq(
                        block.load_b(self.right, i32(0), self.keys, self._key(j), d * SIZE, False),
                        unroll(
                            tile.down,
                            lambda p: block.multiply(
                                self.scores,
                                (p * tile.across + j) * 8,
                                self.left,
                                left(p, d),
                                self.right,
                            ),
                        ),
                    ),
                ),
            )

        clear = block.each(
            lambda w, lane: unroll(self.scores.held, lambda e: self.scores.put(w, lane, e, zero))
        )
        return loops.seq(clear, unroll(pieces, deep))

    def _softmax(self, where: BlockRows, first: Any) -> Stmt:
        block = self.block
        return loops.seq(
            block.each(lambda w, lane: self._masked(where, first, w, lane)),
            block.each(self._tops),
            block.across(self.new, tirx.max, self.other),
            block.each(self._rescaled),
        )

    def _each_score(self, body: Callable[[Any, Any, Any], Stmt]) -> Stmt:
        """Over a thread's scores: ``body`` of the piece of rows, of keys, and of the register."""
        return unroll(
            self.tile.down,
            lambda p: unroll(self.tile.across, lambda j: unroll(8, lambda e: body(p, j, e))),
        )

    def _score_at(self, p: Any, j: Any, e: Any) -> Any:
        return (p * self.tile.across + j) * 8 + e

    def _masked(self, where: BlockRows, first: Any, warp: Any, lane: Any) -> Stmt:
        """Scores scaled; with the bias, and hidden ones ``-inf``, in tiles that have such."""
        attention, sizes, tile = self.attention, self.sizes, self.tile
        scale = tirx.const(attention.scale, "float32")

        def scaled(p: Any, j: Any, e: Any) -> Stmt:
            at = self._score_at(p, j, e)
            return self.scores.put(warp, lane, at, self.scores.at(warp, lane, at) * scale)

        def hidden(p: Any, j: Any, e: Any) -> Stmt:
            at = self._score_at(p, j, e)
            row = self._row(p)(warp) + _down(lane, e)
            key = wide(first) + self._key(j)(warp) + _along(lane, e)
            query, head = where.query(row, sizes)
            exists = key < wide(sizes.keys)
            if attention.bias is not None:
                exists = tirx.all(exists, where.exists(row))
            value = attention.masked(self.scores.at(warp, lane, at), where.batch, head, query, key)
            return self.scores.put(warp, lane, at, tirx.if_then_else(exists, value, form.LEAST))

        every = self._each_score(scaled)
        mask = self._each_score(hidden)
        if attention.bias is not None:
            return loops.seq(every, mask)
        known = loops.as_int(sizes.keys)
        conditions = []
        if known is None or known % tile.keys:
            conditions.append(wide(first) + tile.keys > wide(sizes.keys))
        if attention.causal:
            query, _ = where.query(i32(0), sizes)
            conditions.append(wide(first) + (tile.keys - 1) > attention.last_key(query))
        if not conditions:
            return every
        return loops.seq(every, loops.branch(tirx.any(*conditions), mask))

    def _tops(self, warp: Any, lane: Any) -> Stmt:
        def one(p: Any, j: Any, e: Any) -> Stmt:
            at = p * 2 + _half(e)
            score = self.scores.at(warp, lane, self._score_at(p, j, e))
            return self.new.put(warp, lane, at, tirx.max(self.new.at(warp, lane, at), score))

        keep = unroll(
            self.top.held, lambda e: self.new.put(warp, lane, e, self.top.at(warp, lane, e))
        )
        return loops.seq(keep, self._each_score(one))

    def _rescaled(self, warp: Any, lane: Any) -> Stmt:
        """Scores to powers; sums as if the maximum had been the new one all along."""
        dtype = self.sizes.dtype

        def shrink(e: Any) -> Stmt:
            top = form.finite(self.new.at(warp, lane, e))
            return loops.seq(
                self.other.put(warp, lane, e, form.power(self.top.at(warp, lane, e), top)),
                self.top.put(warp, lane, e, self.new.at(warp, lane, e)),
                self.new.put(warp, lane, e, top),
                self.share.put(
                    warp, lane, e, self.share.at(warp, lane, e) * self.other.at(warp, lane, e)
                ),
            )

        def power(p: Any, j: Any, e: Any) -> Stmt:
            at, row = self._score_at(p, j, e), p * 2 + _half(e)
            value = form.power(self.scores.at(warp, lane, at), self.new.at(warp, lane, row))
            total = self.share.at(warp, lane, row) + self.scores.at(warp, lane, at)
            return loops.seq(
                self.scores.put(warp, lane, at, value),
                self.share.put(warp, lane, row, total),
                self.powers.put(warp, lane, at, self.scores.at(warp, lane, at).astype(dtype)),
            )

        return loops.seq(
            unroll(self.top.held, shrink),
            self._each_score(power),
            self._each_sum(
                lambda p, c, e: self.mixed.put(
                    warp,
                    lane,
                    self._sum_at(p, c, e),
                    self.mixed.at(warp, lane, self._sum_at(p, c, e))
                    * self.other.at(warp, lane, p * 2 + _half(e)),
                )
            ),
        )

    def _each_sum(self, body: Callable[[Any, Any, Any], Stmt]) -> Stmt:
        """Over a thread's sums: ``body`` of the piece of rows, of columns, and of the register."""
        return unroll(
            self.tile.down,
            lambda p: unroll(self.values // SIZE, lambda c: unroll(8, lambda e: body(p, c, e))),
        )

    def _sum_at(self, p: Any, c: Any, e: Any) -> Any:
        return (p * (self.values // SIZE) + c) * 8 + e

    def _mix(self) -> Stmt:
        block, tile = self.block, self.tile
        return unroll(
            tile.across,
            lambda j: unroll(
                self.values // SIZE,
                lambda c: loops.seq(
                    block.load_b(self.right, i32(0), self.mixed_in, self._key(j), c * SIZE, True),
                    unroll(
                        tile.down,
                        lambda p: block.multiply(
                            self.mixed,
                            self._sum_at(p, c, 0),
                            self.powers,
                            self._score_at(p, j, 0),
                            self.right,
                        ),
                    ),
                ),
            ),
        )

    # -- the end -----------------------------------------------------------------------------

    def _finish(self, where: BlockRows) -> Stmt:
        block = self.block
        sums = block.across(self.share, lambda a, b: a + b, self.other)
        if self.tile.warps[1] == 1:
            return loops.seq(sums, block.each(lambda w, lane: self._written(where, w, lane)))
        return loops.seq(
            sums,
            block.each(self._tell),
            block.barrier(),
            block.each(self._agree),
            block.barrier(),
            block.each(lambda w, lane: self._joined(where, w, lane)),
        )

    def _give(self, where: BlockRows, row: Any, column: Any, mean: Expr) -> Stmt:
        query, head = where.query(row, self.sizes)
        dtype = self.sizes.dtype
        inside = where.exists(row)
        if self.values != self.sizes.values:
            inside = tirx.all(inside, column < self.sizes.values)
        index = [wide(where.batch), query, head, wide(column)]
        return loops.branch(inside, loops.store(self.attention.out, mean.astype(dtype), index))

    def _written(self, where: BlockRows, warp: Any, lane: Any) -> Stmt:
        def one(p: Any, c: Any, e: Any) -> Stmt:
            row = self._row(p)(warp) + _down(lane, e)
            total = self.mixed.at(warp, lane, self._sum_at(p, c, e))
            mean = total * self.share.at(warp, lane, p * 2 + _half(e))
            return self._give(where, row, c * SIZE + _along(lane, e), mean)

        def inverse(e: Any) -> Stmt:
            value = form.quotient(tirx.const(1.0, "float32"), self.share.at(warp, lane, e))
            return self.share.put(warp, lane, e, value)

        return loops.seq(unroll(self.share.held, inverse), self._each_sum(one))

    def _place(self, warp: Any, row: Any, part: Any = None) -> Any:
        """Row of what a warp's part of the keys gives to a row of the block."""
        part = tirx.floormod(warp, self.tile.warps[1]) if part is None else part
        return part * self.tile.rows + row

    def _tell(self, warp: Any, lane: Any) -> Stmt:
        def one(e: Any) -> Stmt:
            row = self._row(tirx.floordiv(e, 2))(warp) + tirx.floormod(e, 2) * 8 + _group(lane)
            place = self._place(warp, row)
            return loops.seq(
                self.tops.put(place, 0, self.top.at(warp, lane, e)),
                self.sums.put(place, 0, self.share.at(warp, lane, e)),
            )

        return loops.branch(tirx.floormod(lane, 4).equal(0), unroll(self.top.held, one))

    def _agree(self, warp: Any, lane: Any) -> Stmt:
        """Sums of this warp's keys under the largest score of all."""
        split = self.tile.warps[1]

        def factor(e: Any) -> Stmt:
            row = self._row(tirx.floordiv(e, 2))(warp) + tirx.floormod(e, 2) * 8 + _group(lane)
            top: Any = self.tops.at(self._place(warp, row, 0), 0)
            for part in range(1, split):
                top = tirx.max(top, self.tops.at(self._place(warp, row, part), 0))
            weight: Any = tirx.const(0.0, "float32")
            largest = form.finite(self.new.at(warp, lane, e))
            for part in range(split):
                place = self._place(warp, row, part)
                weight = weight + self.sums.at(place, 0) * form.power(
                    self.tops.at(place, 0), largest
                )
            mine = form.power(self.top.at(warp, lane, e), largest)
            return loops.seq(
                self.new.put(warp, lane, e, top),
                self.share.put(warp, lane, e, weight),
                self.other.put(warp, lane, e, form.quotient(mine, self.share.at(warp, lane, e))),
            )

        def part(p: Any, c: Any, e: Any) -> Stmt:
            value = self.mixed.at(warp, lane, self._sum_at(p, c, e))
            mean = value * self.other.at(warp, lane, p * 2 + _half(e))
            row = self._row(p)(warp) + _down(lane, e)
            return self.parts.put(self._place(warp, row), c * SIZE + _along(lane, e), mean)

        return loops.seq(unroll(self.top.held, factor), self._each_sum(part))

    def _joined(self, where: BlockRows, warp: Any, lane: Any) -> Stmt:
        threads = self.block.warps * WARP

        def one(at: Any) -> Stmt:
            flat = at * threads + warp * WARP + lane
            row, column = tirx.floordiv(flat, self.values), tirx.floormod(flat, self.values)
            mean: Any = self.parts.at(self._place(warp, row, 0), column)
            for part in range(1, self.tile.warps[1]):
                mean = mean + self.parts.at(self._place(warp, row, part), column)
            return self._give(where, row, column, mean)

        return loops.serial(i32(self.tile.rows * self.values // threads), one, "turn")


def _kept(sizes: Sizes) -> bool:
    """Whether queries stay in registers, beside the sums and the scores of a tile of 32 keys."""
    taken = _padded(sizes.depth) // 4 + _padded(sizes.values) // 2 + 16
    return sizes.depth <= _IN_REGISTERS and taken <= _HELD


def _padded(extent: int) -> int:
    """To whole pieces."""
    return -(-extent // SIZE) * SIZE


def _half(element: Any) -> Any:
    """Which of a thread's two rows of a piece a register of sums is of."""
    return tirx.floordiv(tirx.floormod(element, 4), 2)


def _group(lane: Any) -> Any:
    return tirx.floordiv(lane, 4)


def _down(lane: Any, element: Any) -> Any:
    """Row of a register of sums in its piece."""
    return _half(element) * 8 + _group(lane)


def _along(lane: Any, element: Any) -> Any:
    """Column of a register of sums in its piece."""
    pair = tirx.floordiv(element, 4) * 8 + tirx.floormod(element, 2)
    return pair + tirx.floormod(lane, 4) * 2
