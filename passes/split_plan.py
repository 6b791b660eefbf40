"""Which products of a graph are split by columns and by rows, before anything is rewritten."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tvm import relax

from burnish.passes.graph import bindings, op_name, static_shape
from burnish.passes.shardings import Split, covering, even
from burnish.passes.split_rules import (
    ATTENTION,
    ELEMENTWISE,
    HEADS,
    operand_axis,
    permutation,
    source_axis,
)


@dataclass
class Plan:
    """Products with weights: those split by ``columns``, and those by ``rows``.

    ``weights`` gives the weight of each product, and whether the product reads it transposed.
    """

    columns: dict[relax.Var, Split] = field(default_factory=dict)
    rows: dict[relax.Var, Split] = field(default_factory=dict)
    weights: dict[relax.Var, tuple[relax.Var, bool]] = field(default_factory=dict)


def planned(func: relax.Function, weights: set[relax.Var], parts: int, least: int) -> Plan:
    """Pairs of products, columns then rows; products left over are split by columns.

    1. From each product with a weight, the last axis of what it reads is followed back through
       operators that carry it, to the products that make it. Where there are such, those are split
       by columns and this one by rows.
    2. The axis is split evenly in units of its smallest form on that way: heads, where it is
       heads times their size. With fewer units than parts it is not.
    3. What heads share (keys and values, broadcast to groups of them) goes to every rank that has
       one of these heads.
    4. A weight of fewer than ``least`` elements is left whole.
    """
    made = {binding.var: binding.value for binding in bindings(func)}
    plan = Plan()
    for var, value in made.items():
        found = _weight(value, made, weights)
        if found is not None:
            plan.weights[var] = found
    large = [var for var, (weight, _) in plan.weights.items() if _elements(weight) >= least]
    for var in large:
        _pair(plan, made, var, parts)
    for var in large:
        shape = static_shape(made[var])
        if var not in plan.rows and shape is not None and shape[-1] >= parts:
            plan.columns.setdefault(var, Split(len(shape) - 1, even(shape[-1], parts)))
    return plan


def _pair(plan: Plan, made: dict[relax.Var, relax.Expr], var: relax.Var, parts: int) -> None:
    """Split a product by rows where those that make its operand can be split by columns."""
    operand = made[var].args[0]
    shape = static_shape(operand) or ()
    axis, size = len(shape) - 1, shape[-1]
    walk = _Walk(made, plan)
    walk.go(operand, Split(axis, ((0, size),)))
    units = min([size, *walk.units])
    if not walk.found or units < parts or size % units:
        return
    split = Split(axis, even(units, parts, size // units))
    walk = _Walk(made, plan)
    walk.go(operand, split)
    for source, wanted in walk.found.items():
        plan.columns.setdefault(source, wanted)
    plan.rows[var] = split


class _Walk:
    """From a value back to the products that make one of its axes."""

    def __init__(self, made: dict[relax.Var, relax.Expr], plan: Plan) -> None:
        self.made, self.plan = made, plan
        self.found: dict[relax.Var, Split] = {}
        self.units: list[int] = []
        self._seen: set[tuple[relax.Var, Split]] = set()

    def go(self, expr: relax.Expr, split: Split | None) -> None:
        if split is None or not isinstance(expr, relax.Var) or (expr, split) in self._seen:
            return
        self._seen.add((expr, split))
        value = self.made.get(expr)
        if isinstance(value, relax.Var):
            self.go(value, split)
        elif isinstance(value, relax.TupleGetItem):
            self.go(value.tuple_value, split)
        elif isinstance(value, relax.Call):
            self._call(expr, value, split)

    def _call(self, var: relax.Var, call: relax.Call, split: Split) -> None:
        name = op_name(call)
        if var in self.plan.weights:
            shape = static_shape(call)
            if split.axis == len(shape or ()) - 1 and var not in self.plan.rows:
                self.found.setdefault(var, split)
        elif name in ELEMENTWISE:
            for at in range(len(call.args)):
                axis = operand_axis(call, split.axis, at)
                self.go(call.args[at], None if axis is None else split.on(axis))
        elif name in ATTENTION:
            if split.axis == HEADS:
                for operand in call.args[:3]:
                    self.go(operand, split)
        elif name == "relax.reshape":
            self._reshape(call, split)
        elif name == "relax.concat":
            rank = len(static_shape(call) or ())
            if isinstance(call.args[0], relax.Tuple) and int(call.attrs.axis) % rank != split.axis:
                for operand in call.args[0].fields:
                    self.go(operand, split)
        elif name == "relax.matmul":
            rank = len(static_shape(call) or ())
            if split.axis < rank - 2 and all(len(static_shape(a) or ()) == rank for a in call.args):
                for operand in call.args:
                    self.go(operand, split)
        else:
            axis = source_axis(call, split.axis)
            self.go(call.args[0], None if axis is None else split.on(axis))

    def _reshape(self, call: relax.Call, split: Split) -> None:
        operand = call.args[0]
        before, after = static_shape(operand), static_shape(call)
        if before is None or after is None:
            return
        found = covering(split, before, after)
        if found is None:
            return
        shared = op_name(self.made.get(operand)) == "relax.broadcast_to"
        if not shared and before[found.axis] < after[split.axis]:
            self.units.append(before[found.axis])
        self.go(operand, found)


def _weight(
    value: relax.Expr, made: dict[relax.Var, relax.Expr], weights: set[relax.Var]
) -> tuple[relax.Var, bool] | None:
    """The weight ``[I, O]`` that a product reads, or ``[O, I]`` and true."""
    if op_name(value) != "relax.matmul":
        return None
    x, w = value.args
    if static_shape(x) is None or len(static_shape(x) or ()) < 2 or len(static_shape(w) or ()) != 2:
        return None
    if w in weights:
        return w, False
    source = made.get(w)
    if source is not None and op_name(source) == "relax.permute_dims" and source.args[0] in weights:
        return (source.args[0], True) if permutation(source, 2) == [1, 0] else None
    return None


def _elements(weight: relax.Var) -> int:
    return math.prod(static_shape(weight) or (0,))


__all__ = ["Plan", "planned"]
