"""Threads that share a row: how many, and what they find together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets.cpu import loops
from burnish.targets.gpu.launch import Device, barrier, shared

VECTOR = 4
"""Elements that a thread reads at once."""
_EACH = 8
"""Elements of a row a thread has, where rows are many."""
_BLOCK = 256
_GROUPS = 200
"""Blocks that keep a large GPU busy."""
_MOST = 512
_EVERY_LANE = 0xFFFFFFFF


@dataclass(frozen=True)
class Team:
    """``lanes`` threads for a row, ``rows`` rows a block; both powers of two."""

    lanes: int
    rows: int
    device: Device

    @property
    def threads(self) -> int:
        return self.lanes * self.rows


def power(count: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, count - 1).bit_length()


def choose_team(rows: int | None, length: int | None, device: Device) -> Team:
    """By sizes, ``None`` for open ones."""
    most = min(device.threads, _MOST)
    if length is None:
        return Team(min(most, _BLOCK), 1, device)
    few = rows is not None and rows < _GROUPS
    lanes = max(1, min(most, power(-(-length // (VECTOR if few else _EACH)))))
    count = max(1, min(most, _BLOCK) // lanes)
    if rows is not None:
        while count > 1 and -(-rows // count) < _GROUPS and count * lanes > device.warp:
            count //= 2
    return Team(lanes, count, device)


def together(
    team: Team, row: Expr, lane: Expr, value: Expr, combine: Callable[[Expr, Expr], Expr]
) -> tuple[list[Stmt], Expr]:
    """``value`` of all lanes of a row combined, the same for each: what to do, and the result.

    Within a warp lanes hand their values to each other, where the device has that. Beyond it
    they go through shared memory: some lanes combine some values each, then all lanes theirs.
    """
    dtype = str(value.ty.dtype)
    parts: list[Stmt] = []
    own = loops.local([1], dtype, "own")
    zero = loops.const(0)

    def keep(new: Expr) -> Stmt:
        return loops.store(own, new, [zero])

    parts += [loops.allocate(own), keep(value)]
    lanes, left = team.lanes, team.lanes
    if team.device.shuffles:
        width = min(lanes, team.device.warp)
        step = width // 2
        while step:
            other = tirx.op.tvm_warp_shuffle_xor(
                tirx.const(_EVERY_LANE, "uint32"),
                own[(zero,)],
                step,
                team.device.warp,
                team.device.warp,
            )
            parts.append(keep(combine(own[(zero,)], other)))
            step //= 2
        left = lanes // width
    if left > 1:
        # Lanes whose values differ are ``apart``.
        apart = lanes // left
        all_of_them = shared([team.rows, left], dtype, "parts")
        give = loops.store(all_of_them, own[(zero,)], [row, tirx.floordiv(lane, apart)])
        if apart > 1:
            give = loops.branch(tirx.EQ(tirx.floormod(lane, loops.const(apart)), zero), give)
        parts += [loops.allocate(all_of_them), give, barrier()]
        if left > team.device.warp // 2:
            each = power(int(left**0.5))
            fewer = shared([team.rows, left // each], dtype, "fewer")

            def some(at: Expr) -> Expr:
                return _all([all_of_them[row, at * each + i] for i in range(each)], combine)

            at = tirx.min(lane, loops.const(left // each - 1))
            first = loops.store(fewer, some(at), [row, at])
            parts += [
                loops.allocate(fewer),
                loops.branch(lane < left // each, first),
                barrier(),
            ]
            all_of_them, left = fewer, left // each
        parts.append(keep(_all([all_of_them[row, i] for i in range(left)], combine)))
    return parts, own[(zero,)]


def _all(values: list[Expr], combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """A tree of them: sums of halves."""
    while len(values) > 1:
        values = [
            combine(values[i], values[i + 1]) if i + 1 < len(values) else values[i]
            for i in range(0, len(values), 2)
        ]
    return values[0]
