"""Seeing through keys and values repeated for grouped queries (arXiv:2305.13245)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

LookUp = Callable[[relax.Var], relax.Expr | None]


@dataclass(frozen=True)
class Heads:
    """``times`` copies of each head of ``base``, whose axes in the order ``axes`` are
    ``[B, N, KV, D]``.
    """

    base: relax.Expr
    axes: tuple[int, ...]
    times: int

    def once(self) -> relax.Expr:
        """``[B, N, KV, D]``."""
        if self.axes == tuple(range(len(self.axes))):
            return self.base
        return relax.op.permute_dims(self.base, list(self.axes))


def repeated_heads(value: relax.Expr, look_up: LookUp) -> Heads | None:
    """What ``value [B, N, H, D]`` repeats along axis 2, each head ``H / KV`` times in a row.

    It may be a ``repeat``, or an axis of 1 after the heads, broadcast and joined with them;
    transposed before or after.
    """
    axes, call = _untransposed([0, 1, 2, 3], value, look_up)
    at = axes[2]
    if _is(call, "relax.repeat"):
        if call.attrs.axis is None or int(call.attrs.axis) % 4 != at:
            return None
        return _base(call.args[0], axes, int(call.attrs.repeats), look_up)
    joined = _shape(call)
    if not _is(call, "relax.reshape") or joined is None:
        return None
    wide = _bound(call.args[0], look_up)
    apart = _shape(wide)
    if not _is(wide, "relax.broadcast_to") or apart is None or len(apart) != 5:
        return None
    narrow = _shape(wide.args[0])
    times = _int(apart[at + 1])
    if narrow is None or times is None or _int(narrow[at + 1]) != 1:
        return None
    if not _same(joined, [*apart[:at], apart[at] * apart[at + 1], *apart[at + 2 :]]):
        return None
    if not _same(narrow, [*apart[: at + 1], narrow[at + 1], *apart[at + 2 :]]):
        return None
    kept = [axis if axis <= at else axis + 1 for axis in axes]
    return _base(wide.args[0], kept, times, look_up)


def _base(value: relax.Expr, axes: list[int], times: int, look_up: LookUp) -> Heads:
    """Transposes and the axis of 1 taken off, as far as can be seen."""
    rank = len(_shape(value) or ())
    while True:
        axes, _ = _untransposed(axes, value, look_up)
        value = _untransposed_value(value, look_up)
        if rank == 4:
            return Heads(value, tuple(axes), times)
        (lost,) = set(range(5)) - set(axes)
        call = _bound(value, look_up)
        shape = list(_shape(value) or ())
        inner = _shape(call.args[0]) if _is(call, "relax.expand_dims", "relax.reshape") else None
        if inner is not None and _same(inner, [*shape[:lost], *shape[lost + 1 :]]):
            value = call.args[0]
        else:
            value = relax.op.squeeze(value, [lost])
        axes = [axis if axis < lost else axis - 1 for axis in axes]
        rank = 4


def _untransposed(
    axes: list[int], value: relax.Expr, look_up: LookUp
) -> tuple[list[int], relax.Expr]:
    """``axes`` of ``value`` as those of what it transposes, and the call that makes that."""
    call = _bound(value, look_up)
    while _is(call, "relax.permute_dims"):
        order = call.attrs.axes
        rank = len(_shape(call) or ())
        turned = [int(a) for a in order] if order is not None else list(range(rank))[::-1]
        axes = [turned[axis] for axis in axes]
        call = _bound(call.args[0], look_up)
    return axes, call


def _untransposed_value(value: relax.Expr, look_up: LookUp) -> relax.Expr:
    call = _bound(value, look_up)
    while _is(call, "relax.permute_dims"):
        value = call.args[0]
        call = _bound(value, look_up)
    return value


def _bound(value: relax.Expr, look_up: LookUp) -> Any:
    if isinstance(value, relax.Var):
        found = look_up(value)
        return value if found is None else found
    return value


def _is(call: Any, *names: str) -> bool:
    return isinstance(call, relax.Call) and isinstance(call.op, tvm.ir.Op) and call.op.name in names


def _shape(value: Any) -> list[Any] | None:
    shape = getattr(getattr(value, "ty", None), "shape", None)
    return None if shape is None else list(shape)


def _int(value: Any) -> int | None:
    return int(value.value) if isinstance(value, tvm.tirx.IntImm) else None


def _same(a: list[Any], b: list[Any]) -> bool:
    analyzer = tvm.sym.Analyzer()
    return len(a) == len(b) and all(
        analyzer.can_prove_equal(x, y) for x, y in zip(a, b, strict=True)
    )
