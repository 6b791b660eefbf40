"""Products with few rows, as of a language model's decoding: ``y[m, n] = sum_k x[m, k] w[n, k]``.

What they take is the time of reading the weights once. Any device with work groups:

1. Up to ``ROWS`` rows share each weight, which is decoded (4 and 8 bits) in registers.
2. Weights are read 16 bytes at a time where they lie so, by neighbours side by side: along ``k``
   where its steps are neighbours in memory (``"depth"``), else along ``n`` (``"columns"``).
3. ``depth``: ``across`` work items sum a column, ``each`` columns a work item, ``down`` such
   groups a work group. ``columns``: ``across`` items side by side, each with its vector of
   columns, and ``down`` of them share the sum.
4. Their sums meet in local memory, halved at each step, a barrier between: nothing is taken for
   granted of items that run together.
5. What is over at the end of a row is summed one by one. Extents may be open, but the rows'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvm import tirx
from tvm.ir import Expr, TensorLoad, Var
from tvm.ir.prim import Cast
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.gpu.contraction import Contraction, read_contraction
from burnish.targets.gpu.launch import Device, launch_grid, spread, within
from burnish.targets.gpu.readings import Reading, best_reading

ROWS = 8
_LEAST_DEPTH = 8
"""Shorter sums are not worth a group of work items."""
_ITEMS = 128
"""Of a work group."""
_GROUPS = 400
"""Work groups that keep a large GPU busy."""


@dataclass(frozen=True)
class Plan:
    """Sizes as the module's docstring names them."""

    across: int
    down: int
    each: int = 1


def emit(
    func: tirx.PrimFunc, device: Device, most: Callable[[str], int] = lambda _dtype: ROWS
) -> tirx.PrimFunc | None:
    """The kernel of a product of few rows, or ``None`` for any other function.

    ``most`` says how many rows are few, by the operands' type; empty where they differ or a
    weight is decoded.
    """
    product = read_contraction(func)
    if product is None:
        return None
    for one in (product, product.turned()):
        count = loops.as_int(one.count("rows"))
        if count is not None and count <= most(_dtype(one)) and _worth(one):
            reading = best_reading(one, count)
            if reading is None:
                return None
            plan = _plan(one, reading, count, device.threads)
            return func.with_body(_Kernel(one, count, plan, reading).body())
    return None


def _dtype(product: Contraction) -> str:
    dtypes = set()
    for side in (product.left, product.right):
        while isinstance(side, Cast):
            side = side.value
        dtypes.add(str(side.source.dtype) if isinstance(side, TensorLoad) else "")
    return dtypes.pop() if len(dtypes) == 1 else ""


def _worth(product: Contraction) -> bool:
    """Whether there are columns to share the rows, and enough to sum."""
    depth, columns = loops.as_int(product.count("depth")), loops.as_int(product.count("columns"))
    return columns != 1 and columns != 0 and (depth is None or depth >= _LEAST_DEPTH)


def _plan(product: Contraction, reading: Reading, rows: int, items: int) -> Plan:
    """Rule 3: enough work groups first, then columns that share what is read of the rows."""
    items = min(items, _ITEMS)
    extents = [loops.as_int(product.count(name)) for name in ("batch", "columns")]
    many = _GROUPS * _ITEMS
    batches, columns = (n if n is not None else many for n in extents)
    depth = loops.as_int(product.count("depth")) or many
    if reading.axis == "columns":
        across = min(_power(-(-columns // reading.lanes)), 32, items)
        down = min(items // across, _power(depth))
        return Plan(across, down)
    chunks = max(1, depth // reading.lanes)
    across = min(32, _power(chunks), items)
    while across < items and 2 * across <= chunks and batches * columns * across < many:
        across *= 2
    down = min(items // across, _power(columns))
    each = 4 if rows < 8 else 2
    while each > 1 and batches * columns < _GROUPS * down * each:
        each //= 2
    return Plan(across, down, each)


def _power(count: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, count - 1).bit_length()


@dataclass(frozen=True)
class _Kernel:
    product: Contraction
    rows: int
    plan: Plan
    reading: Reading

    def body(self) -> Stmt:
        """The launch."""
        return self._along_depth() if self.reading.axis == "depth" else self._along_columns()

    def _along_depth(self) -> Stmt:
        plan, reading, columns = self.plan, self.reading, self.product.count("columns")
        width = plan.down * plan.each
        depth = self.product.count("depth")
        chunks, over = loops.divide(depth, reading.lanes)
        count = plan.each * self.rows

        def item(batch: Any, block: Any, across: Any, down: Any) -> Stmt:
            sums, meet = self._buffers(count)
            first = block * width + down * plan.each
            # The last column stands in for those beyond the end, which are not stored.
            places = [within(first + r, columns) for r in range(plan.each)]

            def step(how: Reading, chunk: Any) -> Stmt:
                return self._step(how, batch, [(chunk, column) for column in places], sums)

            adds = [spread(chunks, plan.across, across, lambda c: step(reading, c))]
            if reading.tail is not None:
                tail, begin = reading.tail, loops.times(chunks, reading.lanes)
                adds.append(spread(over, plan.across, across, lambda c: step(tail, begin + c)))
            parts = [*map(loops.allocate, meet), loops.allocate(sums), self._start(sums)]
            parts.append(self._where_any(batch, loops.seq(*adds)))
            parts += self._meet(sums, meet, (down, across), 1)

            def finish(index: int) -> Stmt:
                column = first + index % plan.each
                total = meet[index][(down, loops.const(0))]
                stored = self._store(total, batch, loops.const(index // plan.each), column)
                mine = tirx.all(across.equal(index % plan.across), column < columns)
                return loops.branch(mine, self._where_any(batch, stored))

            return loops.seq(*parts, *(finish(index) for index in range(count)))

        return self._launch(width, item)

    def _along_columns(self) -> Stmt:
        plan, reading, columns = self.plan, self.reading, self.product.count("columns")
        width = plan.across * reading.lanes
        vectors, _ = loops.divide(columns, reading.lanes)
        count = reading.lanes * self.rows

        def item(batch: Any, block: Any, across: Any, down: Any) -> Stmt:
            sums, meet = self._buffers(count)
            own = block * plan.across + across
            place = within(own, vectors)

            def step(k: Any) -> Stmt:
                return self._step(reading, batch, [(k, place)], sums)

            adds = spread(self.product.count("depth"), plan.down, down, step)
            parts = [*map(loops.allocate, meet), loops.allocate(sums), self._start(sums)]
            parts.append(self._where_any(batch, adds))
            parts += self._meet(sums, meet, (down, across), 0)

            def finish(index: int) -> Stmt:
                column = own * reading.lanes + index % reading.lanes
                total = meet[index][(loops.const(0), across)]
                stored = self._store(total, batch, loops.const(index // reading.lanes), column)
                mine = tirx.all(down.equal(index % plan.down), column < columns)
                return loops.branch(mine, self._where_any(batch, stored))

            return loops.seq(*parts, *(finish(index) for index in range(count)))

        return self._launch(width, item)

    def _where_any(self, batch: Any, body: Stmt) -> Stmt:
        """``body`` where open extents are not 0: something is launched then too."""
        counts = {name: self.product.count(name) for name in ("batch", "columns")}
        some = []
        if loops.as_int(counts["batch"]) is None:
            some.append(batch < counts["batch"])
        if loops.as_int(counts["columns"]) is None:
            some.append(counts["columns"] > 0)
        return loops.branch(tirx.all(*some), body) if some else body

    def _buffers(self, count: int) -> tuple[Var, list[Var]]:
        """The sums of a work item, and where those of a work group meet.

        Each sum has a buffer of its own: TVM would put barriers between steps on one.
        """
        shape = [self.plan.down, self.plan.across]
        sums = self.product.sums
        meet = [tirx.decl_buffer(shape, sums, f"meet{i}", scope="shared") for i in range(count)]
        return loops.local([count], sums, "sums"), meet

    def _start(self, sums: Var) -> Stmt:
        zero = tirx.const(0, self.product.sums)
        return loops.unroll(int(sums.shape[0]), lambda i: loops.store(sums, zero, [i]))

    def _step(self, how: Reading, batch: Any, places: list[tuple[Any, Any]], sums: Var) -> Stmt:
        """Add the products of one read at each of ``places``, which are depth and column."""
        ats = [
            {how.at["batch"]: batch, how.at["depth"]: depth, how.at["columns"]: column}
            for depth, column in places
        ]
        parts: list[Stmt] = []
        raw = []
        for number, at in enumerate(ats):
            reads, buffers = how.right.read(f"w{number}_", at)
            parts += reads
            raw.append(buffers)
        each, piece = len(ats), how.piece
        weights = loops.local([each * piece], self.product.sums, "weights")
        parts.append(loops.allocate(weights))

        def decoded(r: int, part: Any, v: Any) -> Stmt:
            value = how.right.at(part * piece + v, raw[r], ats[r])
            return loops.store(weights, value, [v + r * piece])

        def some(part: Any) -> Stmt:
            at = {**ats[0], how.at["part"]: part}
            return loops.seq(
                *(loops.unroll(piece, partial(decoded, r, part)) for r in range(each)),
                loops.unroll(self.rows, lambda m: self._row(how, at, m, weights, sums)),
            )

        return loops.seq(*parts, loops.unroll(how.lanes // piece, some))

    def _row(self, how: Reading, at: dict[Var, Any], m: Any, weights: Var, sums: Var) -> Stmt:
        """Add to the sums of row ``m`` what it has with the ``weights`` decoded."""
        at = {**at, how.at["rows"]: m}
        reads, buffers = how.left.read("x", at)
        piece = how.piece
        each = int(weights.shape[0]) // piece
        values = loops.local([how.left.lanes], self.product.sums, "values")

        def given(v: Any) -> Stmt:
            return loops.store(values, how.left.at(v, buffers, at), [v])

        def add(r: int, v: Any) -> Stmt:
            if how.axis == "depth":
                index, value = m * each + r, values[(v,)]
            else:
                index = m * how.lanes + at[how.at["part"]] * piece + v
                value = values[(loops.const(0),)]
            return loops.store(sums, sums[(index,)] + value * weights[(v + r * piece,)], [index])

        return loops.seq(
            *reads,
            loops.allocate(values),
            loops.unroll(how.left.lanes, given),
            *(loops.unroll(piece, partial(add, r)) for r in range(each)),
        )

    def _meet(self, sums: Var, meet: list[Var], own: tuple[Any, Any], axis: int) -> list[Stmt]:
        """Rule 4: sums of all items along an axis of (down, across), at its start."""
        parts = [loops.store(buffer, sums[(loops.const(i),)], own) for i, buffer in enumerate(meet)]
        size = int(meet[0].shape[axis])
        while size > 1:
            size //= 2
            other = tuple(at + size if i == axis else at for i, at in enumerate(own))
            adds = [loops.store(one, one[own] + one[other], own) for one in meet]
            parts.append(loops.branch(own[axis] < size, loops.seq(*adds)))
        return parts

    def _store(self, total: Expr, batch: Any, row: Any, column: Any) -> Stmt:
        product = self.product
        at = {**product.at("batch", batch), **product.at("rows", row)}
        return product.store(total, {**at, **product.at("columns", column)})

    def _launch(self, width: int, item: Callable[[Any, Any, Any, Any], Stmt]) -> Stmt:
        """``item(batch, block, across, down)`` for all of a launch, ``width`` columns a block."""
        plan, batches = self.plan, self.product.count("batch")
        columns = self.product.count("columns")
        known = loops.as_int(columns)
        blocks: loops.Extent = (
            tirx.max(tirx.floordiv(columns + (width - 1), width), loops.const(1))
            if known is None
            else -(-known // width)
        )

        def at(place: Any, across: Any, down: Any) -> Stmt:
            batch, block = loops.split_two(place, blocks)
            if loops.as_int(batches) == 1:
                batch, block = loops.const(0), place
            return item(batch, block, across, down)

        return launch_grid(loops.product([batches, blocks]), plan.across, plan.down, at)
