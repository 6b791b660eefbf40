"""Statements that the threads of a block carry out together, for kernels written by hand.

Each has two forms. On a GPU it is what a thread does, by its warp and its place (lane) in it. As
described, it is a loop over all warps and lanes, with each instruction replaced by what it does
(:mod:`burnish.targets.cuda.fragments` says what lies where), so that a CPU runs the same kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import AttrStmt, Evaluate, Stmt

from burnish.targets.attention_form import as_float32
from burnish.targets.cpu import loops
from burnish.targets.cuda.fragments import SIZE, WARP, Matrix, place_c
from burnish.targets.gpu.launch import barrier, i32, launched, unroll
from burnish.targets.gpu.padded_rows import PaddedRows

SHARED = "shared.dyn"
_AT_ONCE = "tirx.launch_bounds_min_blocks_per_sm"
_SHORT = {"float16": "fp16", "bfloat16": "bf16"}
_ALL_LANES = 0xFFFFFFFF
PerWarp = Callable[[Any], Any]
"""A number that depends on the warp."""


class Memory(PaddedRows):
    """``rows`` of ``stride`` elements in shared memory."""

    def __init__(self, block: Block, name: str, dtype: str, rows: int, stride: int) -> None:
        super().__init__(name, rows, stride, dtype, "global" if block.described else SHARED)


class Registers:
    """``held`` elements of each thread."""

    def __init__(self, block: Block, name: str, dtype: str, held: int) -> None:
        self.held, self.described = held, block.described
        size = block.warps * WARP * held if self.described else held
        scope = "global" if self.described else "local"
        self.buffer = tirx.decl_buffer((size,), dtype, name, scope=scope)

    def _index(self, warp: Any, lane: Any, element: Any) -> Any:
        return (warp * WARP + lane) * self.held + element if self.described else element

    def at(self, warp: Any, lane: Any, element: Any) -> Expr:
        return self.buffer[(self._index(warp, lane, element),)]

    def put(self, warp: Any, lane: Any, element: Any, value: Expr) -> Stmt:
        return loops.store(self.buffer, value, [self._index(warp, lane, element)])


class Block:
    """``warps`` that multiply by ``matrix``; ``asynchronous`` copies go on beside other work."""

    def __init__(self, matrix: Matrix, warps: int, *, described: bool, asynchronous: bool) -> None:
        self.matrix, self.warps, self.described = matrix, warps, described
        self.asynchronous = asynchronous and not described
        self.warp: Any = None
        self.lane: Any = None

    def launched(
        self, count: loops.Extent, body: Callable[[Any], Stmt], at_once: int | None = None
    ) -> Stmt:
        """``count`` blocks; ``body`` of the place of one.

        ``at_once`` is how many a multiprocessor is to hold, from which the compiler knows the
        registers a thread may take. It sees no shared memory that is given at the launch: told
        nothing, it may spill for blocks that have no room.
        """
        if self.described:
            return loops.serial(count, body, "block")

        def thread(place: Expr, warp: Expr, lane: Expr) -> Stmt:
            self.warp, self.lane = warp, lane
            held = body(place)
            return held if at_once is None else AttrStmt(i32(0), _AT_ONCE, i32(at_once), held)

        axes = {"blockIdx.x": count, "threadIdx.y": self.warps, "threadIdx.x": WARP}
        return launched(axes, thread, "int32")

    def each(self, body: Callable[[Any, Any], Stmt]) -> Stmt:
        """What every thread does by itself, by its warp and lane."""
        if not self.described:
            return body(self.warp, self.lane)
        return self._each_warp(
            lambda warp: loops.serial(i32(WARP), lambda lane: body(warp, lane), "lane")
        )

    def _each_warp(self, body: Callable[[Any], Stmt]) -> Stmt:
        return loops.serial(i32(self.warps), body, "warp")

    def barrier(self) -> Stmt:
        return Evaluate(i32(0)) if self.described else barrier(SHARED)

    def copies(self, body: Stmt) -> Stmt:
        """Copies to shared memory that :meth:`wait` waits for."""
        if not self.asynchronous:
            return body
        commit = Evaluate(T.ptx["cp.async.commit_group"]())
        return loops.seq(AttrStmt(i32(0), "async_scope", i32(1), body), commit)

    def wait(self, later: int) -> Stmt:
        """For all copies but the ``later`` ones given last, by all threads."""
        if not self.asynchronous:
            return self.barrier()
        return loops.seq(Evaluate(T.ptx["cp.async.wait_group"](later)), self.barrier())

    def load_a(self, to: Registers, at: Any, given: Memory, row: PerWarp, column: Any) -> Stmt:
        """A piece of ``16 x 16`` from ``row`` and ``column`` on, as a left operand."""
        return self._load(to, at, given, row, column, self.matrix.place_a, False, self._source_a)

    def load_b(
        self, to: Registers, at: Any, given: Memory, row: PerWarp, column: Any, columns_last: bool
    ) -> Stmt:
        """The same as a right operand, whose columns are the rows of memory or its columns."""

        def place(r: Any, c: Any) -> tuple[Any, Any]:
            return self.matrix.place_b(c, r) if columns_last else self.matrix.place_b(r, c)

        def source(lane: Any, stride: int) -> Any:
            return self.matrix.source_b(lane, stride, columns_last)

        return self._load(to, at, given, row, column, place, columns_last, source)

    def _source_a(self, lane: Any, stride: int) -> Any:
        return self.matrix.source_a(lane, stride)

    def _load(
        self,
        to: Registers,
        at: Any,
        given: Memory,
        row: PerWarp,
        column: Any,
        place: Callable[[Any, Any], tuple[Any, Any]],
        turned: bool,
        source: Callable[[Any, int], Any],
    ) -> Stmt:
        if not self.described:
            start = row(self.warp) * given.stride + column + source(self.lane, given.stride)
            return Evaluate(
                T.ptx_legacy.ldmatrix(
                    turned,
                    4,
                    ".b16",
                    to.buffer.data,
                    at,
                    given.buffer.access_ptr("r"),
                    start,
                    dtype=self.matrix.dtype,
                )
            )

        def element(warp: Any, r: Any, c: Any) -> Stmt:
            lane, register = place(r, c)
            return to.put(warp, lane, at + register, given.at(row(warp) + r, column + c))

        return self._each_warp(
            lambda warp: loops.serial(
                i32(SIZE), lambda r: loops.serial(i32(SIZE), lambda c: element(warp, r, c))
            )
        )

    def multiply(self, c: Registers, c_at: Any, a: Registers, a_at: Any, b: Registers) -> Stmt:
        """Add the product of a piece of ``a`` and the one in ``b`` to a piece of ``c``."""
        if not self.described:
            short = _SHORT[self.matrix.dtype]
            steps = [
                T.ptx_legacy.mma(
                    *(step.shape, "row", "col", short, short, "fp32"),
                    *(a.buffer.data, a_at + step.a),
                    *(b.buffer.data, i32(step.b)),
                    *(c.buffer.data, c_at + step.c),
                    False,
                    dtype="float32",
                )
                for step in self.matrix.steps()
            ]
            return loops.seq(*map(Evaluate, steps))

        def term(warp: Any, row: Any, column: Any, k: Any) -> Stmt:
            at, element = place_c(row, column)
            left, right = self.matrix.place_a(row, k), self.matrix.place_b(column, k)
            product = as_float32(a.at(warp, left[0], a_at + left[1]))
            product = product * as_float32(b.at(warp, *right))
            total = c.at(warp, at, c_at + element) + product
            return c.put(warp, at, c_at + element, total)

        def cube(body: Callable[[Any, Any, Any], Stmt]) -> Stmt:
            size = i32(SIZE)
            return loops.serial(
                size,
                lambda x: loops.serial(size, lambda y: loops.serial(size, lambda z: body(x, y, z))),
            )

        return self._each_warp(lambda w: cube(lambda x, y, z: term(w, x, y, z)))

    def across(
        self, registers: Registers, fold: Callable[[Expr, Expr], Expr], other: Registers
    ) -> Stmt:
        """Fold every register over the four threads that share a row of sums; ``other`` is free."""

        def folded(warp: Any, lane: Any) -> Stmt:
            return unroll(
                registers.held,
                lambda e: registers.put(
                    warp, lane, e, fold(registers.at(warp, lane, e), other.at(warp, lane, e))
                ),
            )

        def step(mask: int) -> Stmt:
            taken = self.each(lambda w, lane: self._taken(registers, other, w, lane, mask))
            return loops.seq(taken, self.each(folded))

        return loops.seq(step(1), step(2))

    def _taken(self, given: Registers, to: Registers, warp: Any, lane: Any, mask: int) -> Stmt:
        """What the lane whose number differs in ``mask`` has."""

        def one(element: Any) -> Stmt:
            if self.described:
                value = given.at(warp, tirx.bitwise_xor(lane, i32(mask)), element)
            else:
                value = tirx.op.tvm_warp_shuffle_xor(
                    tirx.const(_ALL_LANES, "uint32"),
                    given.at(warp, lane, element),
                    i32(mask),
                    i32(WARP),
                    i32(WARP),
                )
            return to.put(warp, lane, element, value)

        return unroll(given.held, one)


def allocated(*buffers: Memory | Registers) -> tuple[Stmt, ...]:
    """Statements that give them memory."""
    return tuple(loops.allocate(one.buffer) for one in buffers)


__all__ = ["Block", "Memory", "PerWarp", "Registers", "allocated"]
