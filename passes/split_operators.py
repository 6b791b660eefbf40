"""Operators on parts of their operands: what a rank computes of each, and how that is split."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax

from burnish.passes.graph import op_name, static_shape
from burnish.passes.shardings import Split, even, reshaped
from burnish.passes.split_plan import Plan
from burnish.passes.split_rules import (
    ATTENTION,
    BIAS_HEADS,
    ELEMENTWISE,
    HEADS,
    LOOKUP_MODES,
    operand_axis,
    result_axis,
)
from burnish.passes.split_values import Parts, Value


class SplitOperators:
    """Rules 2 to 4 of :class:`~burnish.passes.split_tensors.SplitTensors`, by operator.

    A rule gives the value on parts, or whole by way of a collective; ``None`` leaves the operator
    to run on whole values. What it needs beside is written by ``here``.
    """

    def __init__(self, here: Parts, plan: Plan, parts: int, least: int) -> None:
        self.here, self.plan = here, plan
        self.parts, self.least = parts, least
        self._rules: dict[str, Callable[[relax.Call], Value | None]] = {
            "relax.take": self._lookup,
            "relax.reshape": self._reshape,
            "relax.concat": self._concat,
            "relax.matmul": self._batched,
            **dict.fromkeys(ATTENTION, self._attention),
            **dict.fromkeys(ELEMENTWISE, self._elementwise),
        }

    def split(self, var: relax.Var, value: relax.Expr) -> Value | None:
        """What stands for ``var``, bound to ``value``."""
        if isinstance(value, relax.TupleGetItem):
            split = self.here.split_of(value.tuple_value)
            if split is None:
                return None
            source = self.here.value(value.tuple_value).expr
            return Value(relax.TupleGetItem(source, value.index), split)
        if not isinstance(value, relax.Call):
            return None
        if var in self.plan.weights:
            return self._product(var, value)
        return self._rules.get(op_name(value), self._carried)(value)

    def _product(self, var: relax.Var, call: relax.Call) -> Value | None:
        """By a weight: its columns or rows, as planned."""
        here = self.here
        weight, transposed = self.plan.weights[var]
        dtype = call.attrs.out_dtype or None
        given = here.split_of(call.args[0])
        if var in self.plan.rows:
            split = self.plan.rows[var]
            x = here.parts_of(call.args[0], split)
            w = self._weight(weight, transposed, split.on(1 if transposed else 0))
            part = here.emit(relax.op.matmul(x, w, dtype))
            return Value(here.reduced(part, call.ty))
        if var in self.plan.columns:
            split = self.plan.columns[var]
            x = here.whole_of(call.args[0])
            w = self._weight(weight, transposed, split.on(0 if transposed else 1))
            return Value(relax.op.matmul(x, w, dtype), split)
        last = len(static_shape(call) or ()) - 1
        w = self._weight(weight, transposed, None)
        if given is None or given.axis == last:
            return Value(relax.op.matmul(here.whole_of(call.args[0]), w, dtype))
        return Value(relax.op.matmul(here.value(call.args[0]).expr, w, dtype), given)

    def _weight(self, weight: relax.Var, transposed: bool, split: Split | None) -> relax.Expr:
        held = self.here.held_for(weight.name, split)
        return self.here.emit(relax.op.permute_dims(held)) if transposed else held

    def _lookup(self, call: relax.Call) -> Value | None:
        """Rows ``ids`` of a table of which each rank has some; ids out of range are clipped."""
        here, (table, ids) = self.here, call.args
        shape = static_shape(table)
        if not here.is_weight(table) or shape is None or int(call.attrs.axis or 0) != 0:
            return None
        if str(call.attrs.mode) not in LOOKUP_MODES or static_shape(ids) is None:
            return None
        if shape[0] < self.parts or int(np.prod(shape)) < self.least or len(shape) != 2:
            return None
        split = Split(0, even(shape[0], self.parts))
        start, stop = split.ranges[here.rank]
        kind = str(ids.ty.dtype)
        known = here.emit(relax.op.clip(here.whole_of(ids), 0, shape[0] - 1))
        moved = here.emit(relax.op.subtract(known, relax.const(start, kind)))
        inside = here.emit(relax.op.clip(moved, 0, stop - start - 1))
        held = here.held_for(table.name, split)
        rows = here.emit(relax.op.take(held, inside, axis=0, mode="clip"))
        own = here.emit(relax.op.equal(moved, inside))
        own = here.emit(relax.op.expand_dims(own, [-1]))
        zero = relax.const(0, str(call.ty.dtype))
        part = here.emit(relax.op.where(own, rows, zero))
        return Value(here.reduced(part, call.ty))

    def _elementwise(self, call: relax.Call) -> Value | None:
        """By the narrowest of the operands' splits; the others are cut to it."""
        here, shape = self.here, static_shape(call)
        splits = []
        for operand in call.args:
            given = here.split_of(operand)
            if given is not None and shape is not None:
                axis = given.axis + len(shape) - len(static_shape(operand) or ())
                splits.append(given.on(axis))
        if not splits or shape is None:
            return None
        split = next((s for s in splits if all(o.covers(s) for o in splits)), splits[0])
        args = []
        for at, operand in enumerate(call.args):
            if not isinstance(operand.ty, relax.TensorType):
                args.append(operand)
                continue
            own = operand_axis(call, split.axis, at)
            if own is None:
                args.append(here.whole_of(operand))
            else:
                args.append(here.parts_of(operand, split.on(own)))
        return _again(call, args, split)

    def _attention(self, call: relax.Call) -> Value | None:
        """By heads."""
        here = self.here
        split = here.split_of(call.args[0])
        if split is None or split.axis != HEADS:
            return None
        heads = {(static_shape(operand) or (0,) * 3)[HEADS] for operand in call.args[:3]}
        if len(heads) != 1:
            return None
        args = [here.parts_of(operand, split) for operand in call.args[:3]]
        for bias in call.args[3:]:
            shared = (static_shape(bias) or (1, 1))[BIAS_HEADS] == 1
            args.append(
                here.whole_of(bias) if shared else here.parts_of(bias, split.on(BIAS_HEADS))
            )
        return _again(call, args, split)

    def _reshape(self, call: relax.Call) -> Value | None:
        split = self.here.split_of(call.args[0])
        before, after = static_shape(call.args[0]), static_shape(call)
        if split is None or before is None or after is None:
            return None
        split = reshaped(split, before, after)
        if split is None:
            return None
        part = self.here.value(call.args[0]).expr
        return Value(relax.op.reshape(part, split.local(after, self.here.rank)), split)

    def _concat(self, call: relax.Call) -> Value | None:
        here = self.here
        fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else []
        split = next((s for s in map(here.split_of, fields) if s is not None), None)
        rank = len(static_shape(call) or ())
        axis = int(call.attrs.axis) % rank if rank else 0
        if split is None or split.axis == axis:
            return None
        return Value(relax.op.concat([here.parts_of(f, split) for f in fields], axis), split)

    def _batched(self, call: relax.Call) -> Value | None:
        """A product of two values of one batch, of which each rank has some."""
        here, rank = self.here, len(static_shape(call) or ())
        given = [here.split_of(operand) for operand in call.args]
        split = next((s for s in given if s is not None), None)
        whole = static_shape(call)
        if split is None or whole is None or split.axis >= rank - 2:
            return None
        shapes = [static_shape(operand) for operand in call.args]
        if any(s is None or len(s) != rank or s[split.axis] != whole[split.axis] for s in shapes):
            return None
        a, b = (here.parts_of(operand, split) for operand in call.args)
        return Value(relax.op.matmul(a, b, call.attrs.out_dtype or None), split)

    def _carried(self, call: relax.Call) -> Value | None:
        """Any other operator that carries the axis of its first operand."""
        here = self.here
        given = here.split_of(call.args[0]) if call.args else None
        axis = None if given is None else result_axis(call, given.axis)
        if given is None or axis is None:
            return None
        value, split = here.value(call.args[0]), given.on(axis)
        if op_name(call) == "relax.broadcast_to":
            shape = split.local(static_shape(call) or (), here.rank)
            return Value(relax.op.broadcast_to(value.expr, relax.ShapeExpr(shape)), split)
        return _again(call, [value.expr, *call.args[1:]], split)


def _again(call: relax.Call, args: list[relax.Expr], split: Split) -> Value:
    """The operator, of other operands."""
    return Value(relax.Call(call.op, args, call.attrs, call.ty_args), split)


__all__ = ["SplitOperators"]
