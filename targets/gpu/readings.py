"""How the weights of a product are read: along which axis, and how many steps at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tvm.ir import Expr, Var

from burnish.targets.cpu import loops
from burnish.targets.gpu.contraction import Contraction
from burnish.targets.gpu.fetches import VECTOR_BYTES, Bounds, Operand, operand

LANES = (32, 16, 8, 4, 2, 1)
SUMS = 32
"""Partial sums of a work item, at most."""
_PIECE = 8
"""Weights decoded at once."""


@dataclass(frozen=True)
class Reading:
    """The weights in ``right``, read in ``lanes`` steps along ``axis``; ``left`` in ``piece``.

    ``at`` has the variables that stand for a place: ``batch``, ``rows``, ``part`` (the pieces of
    ``lanes``), and ``depth`` and ``columns``, of which that along ``axis`` counts ``lanes``.
    ``tail`` is the same one by one.
    """

    axis: str
    lanes: int
    piece: int
    left: Operand
    right: Operand
    at: dict[str, Var]
    tail: Reading | None = None


def best_reading(product: Contraction, rows: int) -> Reading | None:
    """The reading with the widest loads; ``None`` where neighbours do not read neighbours."""
    found = []
    for axis in ("depth", "columns"):
        single = _reading(product, axis, 1)
        if single is None or not neighbours(product, axis):
            continue
        extent = loops.as_int(product.count(axis))
        for lanes in LANES[:-1]:
            if extent is None or lanes > extent:
                continue
            if axis == "columns" and (lanes > SUMS // rows or extent % lanes):
                continue
            wide = _reading(product, axis, lanes)
            if wide is not None and wide.right.bytes and wide.right.span <= VECTOR_BYTES:
                over = axis == "depth" and extent % lanes
                found.append(replace(wide, tail=single) if over else wide)
                break
        else:
            found.append(single)
    return max(found, key=lambda one: one.right.bytes, default=None)


def _reading(product: Contraction, axis: str, lanes: int) -> Reading | None:
    names = ("batch", "rows", "columns", "depth", "part")
    at = {name: Var(name, "int64") for name in names}
    lane, piece = Var("lane", "int64"), min(_PIECE, lanes)
    bounds: Bounds = {
        **{at[n]: (0, product.count(n)) for n in names[:2]},
        **{at[n]: (0, _steps(product.count(n), lanes if n == axis else 1)) for n in names[2:4]},
        at["part"]: (0, lanes // piece),
    }

    def value(side: Expr, step: Any) -> Expr:
        for name in names[:4]:
            place = at[name] * lanes + step if name == axis and lanes > 1 else at[name]
            side = loops.substitute(side, product.at(name, place))
        return side

    if lanes == 1:
        right = operand(value(product.right, 0), lane, 1, bounds)
        left = operand(value(product.left, 0), lane, 1, bounds)
    else:
        right = operand(value(product.right, lane), lane, lanes, bounds)
        left_step = at["part"] * piece + lane
        left_lanes = piece if axis == "depth" else 1
        left = operand(value(product.left, left_step), lane, left_lanes, bounds)
    if left is None or right is None:
        return None
    return Reading(axis, lanes, piece, left, right, at)


def _steps(extent: loops.Extent, lanes: int) -> loops.Extent:
    known = loops.as_int(extent)
    return max(1, known // lanes) if known is not None else extent


def neighbours(product: Contraction, axis: str) -> bool:
    """Whether steps along ``axis`` read the weights side by side, on a word's edge or not."""
    names = ("batch", "rows", "columns", "depth")
    lane = Var("lane", "int64")
    place = {name: Var(name, "int64") for name in names}
    bounds: Bounds = {place[name]: (0, product.count(name)) for name in names}
    for lanes in LANES[:-1]:
        value = product.right
        for name in names:
            at = place[name] * lanes + lane if name == axis else place[name]
            value = loops.substitute(value, product.at(name, at))
        found = operand(value, lane, lanes, bounds, aligned=False)
        if found is not None and any(fetch.count > 1 for fetch in found.fetches):
            return True
    return False
