"""Take by known places that are a few runs (mirrored and repeated edges, rolls) without a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.passes.graph import constant_array

MOST_RUNS = 8
"""Each is a range of code of its own."""


@dataclass(frozen=True)
class Run:
    """Places ``first, first + step, ...`` for the results before ``stop`` and from ``start`` on."""

    start: int
    stop: int
    first: int
    step: int


def runs(places: Sequence[int]) -> list[Run]:
    """``places`` as runs of steps -1, 0 and 1, as few as going from the first on makes."""
    found: list[Run] = []
    at = 0
    while at < len(places):
        end = at + 1
        step = places[end] - places[at] if end < len(places) else 1
        if abs(step) > 1:
            step = 1
        while end < len(places) and places[end] - places[end - 1] == step:
            end += 1
        found.append(Run(at, end, places[at], step))
        at = end
    return found


def taken(axis: int, parts: Sequence[Run]) -> Callable[[te.Tensor], te.Tensor]:
    """``x -> x`` at the places of ``parts`` along ``axis``."""

    def make(x: te.Tensor) -> te.Tensor:
        shape = list(x.shape)
        shape[axis] = parts[-1].stop

        def value(*where: Any) -> Expr:
            i = where[axis]

            def at(part: Run) -> Expr:
                place = part.first + part.step * (i - part.start)
                return x(*where[:axis], place, *where[axis + 1 :])

            result = at(parts[-1])
            for part in reversed(parts[:-1]):
                result = tirx.if_then_else(i < part.stop, at(part), result)
            return result

        return te.compute(shape, value, name="taken")

    return make


def lower_take(builder: relax.BlockBuilder, call: relax.Call, _out: Any) -> relax.Expr | None:
    """A take along an axis by a constant ``[N]`` of few runs, all inside; else ``None``."""
    x, where = call.args
    places = constant_array(where)
    if places is None or call.attrs.axis is None:
        return None
    axis = int(call.attrs.axis) % int(x.ty.ndim)
    extent = x.ty.shape[axis] if isinstance(x.ty.shape, relax.ShapeExpr) else None
    if places.ndim != 1 or places.size == 0 or not isinstance(extent, tirx.IntImm):
        return None
    if places.min() < 0 or places.max() >= int(extent):
        return None
    parts = runs([int(place) for place in places])
    if len(parts) > MOST_RUNS:
        return None
    return builder.call_te(taken(axis, parts), x, primfunc_name_hint="take")
