"""Rule for running sums and products along one axis (cumsum, cumprod).

The definition that the kernel carries, a sum over all earlier elements for each element, is
quadratic; its attribute ``burnish.scan`` says what it is, and this rule writes it in one pass.

1. Axes behind the scanned one are vector lanes: a thread takes up to four vectors of them, so
   that four adds of which each waits for the last are under way at once.
2. Along the last axis there are no such lanes. A thread then takes ``STREAMS`` rows at once: an
   add takes four cycles from operand to result, and as many independent ones fill that time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Expr, Var
from tvm.tirx import Stmt

from burnish.targets.cpu import loops, maps
from burnish.targets.target import CpuTarget

SCAN = "burnish.scan"
STREAMS = 8
_VECTORS = 4
_COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {
    "sum": lambda a, b: a + b,
    "prod": lambda a, b: a * b,
}


def emit(func: tirx.PrimFunc, target: CpuTarget) -> tirx.PrimFunc | None:
    """The kernel of a scan ``x [..., N, ...] -> out``, or ``None`` for any other function."""
    attrs = dict(func.attrs.items()) if func.attrs is not None else {}
    if SCAN not in attrs:
        return None
    info = {str(k): v for k, v in attrs[SCAN].items()}
    x, out = (p for p in func.params if hasattr(p, "shape"))
    axis = int(info["axis"])
    scan = _Scan(x, out, axis, str(info["kind"]), bool(int(info["exclusive"])), target)
    body = scan.across() if axis + 1 < len(x.shape) else scan.along()
    return loops.prim_func(
        func.params, body, {**{str(k): v for k, v in attrs.items()}, "s_tir": True}
    )


class _Scan:
    """One scan being written."""

    def __init__(
        self, x: Var, out: Var, axis: int, kind: str, exclusive: bool, target: CpuTarget
    ) -> None:
        self.x, self.out, self.axis, self.exclusive, self.target = x, out, axis, exclusive, target
        self.combine = _COMBINE[kind]
        self.dtype = str(out.dtype)
        self.start = tirx.const(1 if kind == "prod" else 0, self.dtype)
        self.shape = list(x.shape)
        self.size = self.shape[axis]

    def step(self, state: Var, slot: Expr, at: Sequence[Expr]) -> Stmt:
        """Element ``at``: state joined, stored."""
        value = self.combine(state[slot], self.x[tuple(at)].astype(self.dtype))
        keep = loops.store(state, value, [slot])
        if self.exclusive:
            # The sum of what came before, then the element.
            return loops.seq(loops.store(self.out, state[slot], at), keep)
        return loops.seq(keep, loops.store(self.out, state[slot], at))

    def across(self) -> Stmt:
        """Rule 1."""
        outer, inner = self.shape[: self.axis], self.shape[self.axis + 1 :]
        lanes = self.target.lanes
        width = lanes * _VECTORS
        columns = loops.product(inner)
        blocks, rest = loops.divide(columns, width)

        def block(outer_at: list[Expr], first: Expr, count: loops.Extent, wide: bool) -> Stmt:
            state = loops.local([width if wide else 1], self.dtype, "state")

            def at(k: Expr, column: Expr) -> list[Expr]:
                return [*outer_at, k, *loops.split_index(column, inner)]

            if wide:
                return loops.seq(
                    loops.allocate(state),
                    loops.vectors(width, lanes, lambda v: loops.store(state, self.start, [v])),
                    loops.serial(
                        self.size,
                        lambda k: loops.vectors(
                            width, lanes, lambda v: self.step(state, v, at(k, first + v))
                        ),
                    ),
                )
            zero = loops.const(0)
            return loops.serial(
                count,
                lambda c: loops.seq(
                    loops.allocate(state),
                    loops.store(state, self.start, [zero]),
                    loops.serial(self.size, lambda k: self.step(state, zero, at(k, first + c))),
                ),
            )

        outside = loops.product(outer)
        work = loops.as_int(loops.product(self.shape))

        def task(p: Expr) -> Stmt:
            row, b = loops.split_two(p, blocks)
            return block(loops.split_index(row, outer), b * width, width, True)

        parts: list[Stmt] = []
        if loops.as_int(blocks) != 0:
            parts.append(maps.parallel_or_serial(loops.product([outside, blocks]), work, task))
        if loops.as_int(rest) != 0:
            start = loops.times(blocks, width)
            parts.append(
                maps.parallel_or_serial(
                    outside,
                    work,
                    lambda p: block(loops.split_index(p, outer), start, rest, False),
                )
            )
        return loops.seq(*parts)

    def along(self) -> Stmt:
        """Rule 2."""
        outer = self.shape[: self.axis]
        rows = loops.product(outer)
        groups, rest = loops.divide(rows, STREAMS)
        work = loops.as_int(loops.product(self.shape))

        def streams(first: Expr, count: int) -> Stmt:
            state = loops.local([count], self.dtype, "state")

            def row(k: Expr, s: int) -> Stmt:
                at = [*loops.split_index(first + s, outer), k]
                return self.step(state, loops.const(s), at)

            clear = [loops.store(state, self.start, [loops.const(s)]) for s in range(count)]
            return loops.seq(
                loops.allocate(state),
                *clear,
                loops.serial(self.size, lambda k: loops.seq(*[row(k, s) for s in range(count)])),
            )

        parts: list[Stmt] = []
        if loops.as_int(groups) != 0:
            parts.append(
                maps.parallel_or_serial(groups, work, lambda g: streams(g * STREAMS, STREAMS))
            )
        if loops.as_int(rest) != 0:
            start = loops.times(groups, STREAMS)
            parts.append(maps.parallel_or_serial(rest, work, lambda r: streams(start + r, 1)))
        return loops.seq(*parts)
