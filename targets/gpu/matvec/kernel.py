"""The launch of a product of few rows, along either axis of the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.gpu.contraction import Contraction, read_contraction
from burnish.targets.gpu.launch import Device, launch_grid, spread, within
from burnish.targets.gpu.matvec.plan import ROWS, Plan, is_worth, operands_dtype, plan_of
from burnish.targets.gpu.matvec.sums import Sums
from burnish.targets.gpu.readings import Reading, best_reading


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
        if count is not None and count <= most(operands_dtype(one)) and is_worth(one):
            reading = best_reading(one, count)
            if reading is None:
                return None
            plan = plan_of(one, reading, count, device.threads)
            return func.with_body(_Kernel(one, count, plan, reading).body())
    return None


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
        chunks, over = loops.divide(self.product.count("depth"), reading.lanes)

        def item(batch: Any, block: Any, across: Any, down: Any) -> Stmt:
            first = block * width + down * plan.each
            # The last column stands in for those beyond the end, which are not stored.
            places = [within(first + r, columns) for r in range(plan.each)]

            def adds(sums: Sums) -> Stmt:
                def step(how: Reading, chunk: Any) -> Stmt:
                    return sums.add(how, batch, [(chunk, column) for column in places])

                parts = [spread(chunks, plan.across, across, lambda c: step(reading, c))]
                if reading.tail is not None:
                    tail, begin = reading.tail, loops.times(chunks, reading.lanes)
                    parts.append(spread(over, plan.across, across, lambda c: step(tail, begin + c)))
                return loops.seq(*parts)

            return self._summed(batch, first, plan.each, adds, (down, across), 1)

        return self._launch(width, item)

    def _along_columns(self) -> Stmt:
        plan, reading = self.plan, self.reading
        vectors, _ = loops.divide(self.product.count("columns"), reading.lanes)

        def item(batch: Any, block: Any, across: Any, down: Any) -> Stmt:
            own = block * plan.across + across
            place = within(own, vectors)

            def adds(sums: Sums) -> Stmt:
                def step(k: Any) -> Stmt:
                    return sums.add(reading, batch, [(k, place)])

                return spread(self.product.count("depth"), plan.down, down, step)

            first = own * reading.lanes
            return self._summed(batch, first, reading.lanes, adds, (down, across), 0)

        return self._launch(plan.across * reading.lanes, item)

    def _summed(
        self,
        batch: Any,
        first: Any,
        columns: int,
        adds: Callable[[Sums], Stmt],
        own: tuple[Any, Any],
        axis: int,
    ) -> Stmt:
        """The sums of an item's ``columns`` from ``first`` on, joined along an axis of (down,
        across), and stored by the items along it in turn."""
        count = columns * self.rows
        sums = Sums(count, self.rows, self.product.sums, self.plan)
        items = (self.plan.down, self.plan.across)[axis]

        def finish(index: int) -> Stmt:
            row, column = loops.const(index // columns), first + index % columns
            stored = self._store(sums.joined(index, own, axis), batch, row, column)
            inside = column < self.product.count("columns")
            mine = tirx.all(own[axis].equal(index % items), inside)
            return loops.branch(mine, self._where_any(batch, stored))

        return loops.seq(
            *sums.start(),
            self._where_any(batch, adds(sums)),
            *sums.join(own, axis),
            *(finish(index) for index in range(count)),
        )

    def _where_any(self, batch: Any, body: Stmt) -> Stmt:
        """``body`` where open extents are not 0: something is launched then too."""
        counts = {name: self.product.count(name) for name in ("batch", "columns")}
        some = []
        if loops.as_int(counts["batch"]) is None:
            some.append(batch < counts["batch"])
        if loops.as_int(counts["columns"]) is None:
            some.append(counts["columns"] > 0)
        return loops.branch(tirx.all(*some), body) if some else body

    def _store(self, total: Any, batch: Any, row: Any, column: Any) -> Stmt:
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


__all__ = ["emit"]
