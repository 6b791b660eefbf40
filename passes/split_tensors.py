"""Split the large weights of one model over processes that run it together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from burnish.passes.graph import bindings, op_name, static_shape
from burnish.passes.params import get_params, input_vars, with_main, with_params
from burnish.passes.shardings import Split, even, reshaped
from burnish.passes.split_plan import planned
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

SPLIT = "split_tensors"
"""Attribute of a ``main`` that was split: ``[rank, parts]``."""


@tvm.transform.module_pass(opt_level=0, name="SplitTensors")
@dataclass(frozen=True)
class SplitTensors:
    """``main`` as process ``rank`` of ``parts`` runs it; the others run the same collectives.

    Tensor parallelism as in Megatron-LM (Shoeybi et al., arXiv:1909.08053): a product split by
    columns, what follows it on parts (elementwise, attention by heads), a product split by rows,
    and one sum over the ranks. Ours finds the pairs by following axes through the graph
    (:func:`~burnish.passes.split_plan.planned`), and deals out heads unevenly where it must.

    1. A value is whole on every rank, or split along an axis.
    2. Columns: rank ``r`` has those columns of the weight, and of the result. Rows: it has those
       rows, and the sum over the ranks is whole.
    3. Operators that carry an axis (elementwise, attention, reshapes, permutations, ...) run on
       parts; whole operands, weights too, are cut to them. For all else a value is made whole.
    4. A lookup in a large table splits its rows: a rank looks up those that it has, zero for the
       rest, and the sum is whole.
    5. Weights of fewer than ``least`` elements, and values of open sizes, stay whole.

    A module that was split so is returned as it is; ``ValueError`` for one split otherwise.
    """

    parts: int
    rank: int
    least: int = 1 << 14

    def __post_init__(self) -> None:
        if self.parts < 1 or not 0 <= self.rank < self.parts:
            raise ValueError(f"rank must be from 0 to {self.parts - 1}, and parts 1 or more; got "
                             f"rank {self.rank} of {self.parts}")  # fmt: skip
        if self.least < 1:
            raise ValueError(f"least must be 1 or more, got {self.least}")

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        attrs = mod["main"].attrs
        if attrs is not None and SPLIT in attrs:
            before = [int(n) for n in attrs[SPLIT]]
            if before != [self.rank, self.parts]:
                raise ValueError(
                    f"the module is rank {before[0]} of {before[1]} already, and cannot be split "
                    f"into rank {self.rank} of {self.parts}: split the whole one"
                )
            return mod
        return _Rewriter(mod, self).module()


class _Rewriter(Parts):
    def __init__(self, mod: tvm.IRModule, options: SplitTensors) -> None:
        super().__init__(mod, options.rank)
        self.mod, self.main = mod, mod["main"]
        self.parts, self.least = options.parts, options.least
        own = set(self.weights.values())
        self.plan = planned(self.main, own, self.parts, self.least)
        read: dict[relax.Var, bool] = {}
        for binding in bindings(self.main):
            for var in relax.analysis.free_vars(binding.value):
                read[var] = read.get(var, True) and binding.var in self.plan.weights
        for var in relax.analysis.free_vars(self.main.body.body):
            read[var] = False
        turned = {b.var for b in bindings(self.main) if self._turned(b.value)}
        self.unread = {var for var, products in read.items() if products and var in turned}

    def _turned(self, value: relax.Expr) -> bool:
        """Whether it is the transpose of a weight, which :meth:`_weight` writes anew."""
        return op_name(value) == "relax.permute_dims" and self.is_weight(value.args[0])

    def module(self) -> tvm.IRModule:
        inputs = []
        for var in input_vars(self.mod):
            inputs.append(relax.Var(var.name, var.ty))
            self.values[var] = Value(inputs[-1])
        blocks = []
        for block in self.main.body.blocks:
            dataflow = isinstance(block, relax.DataflowBlock)
            self.kind = relax.DataflowVar if dataflow else relax.Var
            self.block, self.whole = [], {}
            for binding in block.bindings:
                self._binding(binding)
            blocks.append((relax.DataflowBlock if dataflow else relax.BindingBlock)(self.block))
        self.block, self.whole, self.kind = [], {}, relax.Var
        result = self.renamed(self.main.body.body)
        if self.block:
            blocks.append(relax.BindingBlock(self.block))
        held = {key: self.held[key] for key in sorted(self.held, key=self._order)}
        func = relax.Function(
            [*inputs, *held.values()],
            relax.SeqExpr(blocks, result),
            self.main.ret_ty,
            self.main.is_pure,
            self.main.attrs,
        ).with_attr(SPLIT, [self.rank, self.parts])
        values = get_params(self.mod)
        params = {
            var.name: self.part_of(values[name], split)
            for (name, split), var in held.items()
            if name in values
        }
        new = relax.transform.Normalize()(with_params(with_main(self.mod, func), params))
        return relax.transform.DeadCodeElimination(["main"])(new)

    def _order(self, key: tuple[str, Split | None]) -> int:
        return list(self.weights).index(key[0])

    def _binding(self, binding: relax.Binding) -> None:
        if binding.var in self.unread:
            return
        value = binding.value
        self.name = binding.var.name
        if isinstance(binding, relax.VarBinding):
            if isinstance(value, relax.Var):
                self.values[binding.var] = self.value(value)
                return
            made = self._split(binding.var, value)
            if made is not None:
                inner = isinstance(binding.var, relax.DataflowVar)
                known = inner and isinstance(made.expr, relax.Var)
                var = made.expr if known else self.emit(made.expr, type(binding.var))
                self.values[binding.var] = Value(var, made.split)
                return
        var = type(binding.var)(binding.var.name, binding.var.ty)
        value = self.renamed(value)
        if isinstance(binding, relax.MatchCast):
            self.block.append(relax.MatchCast(var, value, binding.ty))
        else:
            self.block.append(relax.VarBinding(var, value))
        self.values[binding.var] = Value(var)

    def _split(self, var: relax.Var, value: relax.Expr) -> Value | None:
        """The value on parts, or whole by way of a collective; ``None`` where it is as it was."""
        if isinstance(value, relax.TupleGetItem):
            split = self.split_of(value.tuple_value)
            if split is None:
                return None
            source = self.value(value.tuple_value).expr
            return Value(relax.TupleGetItem(source, value.index), split)
        if not isinstance(value, relax.Call):
            return None
        name = op_name(value)
        if var in self.plan.weights:
            return self._product(var, value)
        if name == "relax.take":
            return self._lookup(value)
        rules: dict[str, Callable[[relax.Call], Value | None]] = {
            "relax.reshape": self._reshape,
            "relax.concat": self._concat,
            "relax.matmul": self._batched,
            **dict.fromkeys(ATTENTION, self._attention),
            **dict.fromkeys(ELEMENTWISE, self._elementwise),
        }
        return rules.get(name, self._carried)(value)

    def _product(self, var: relax.Var, call: relax.Call) -> Value | None:
        weight, transposed = self.plan.weights[var]
        dtype = call.attrs.out_dtype or None
        given = self.split_of(call.args[0])
        if var in self.plan.rows:
            split = self.plan.rows[var]
            x = self.parts_of(call.args[0], split)
            w = self._weight(weight, transposed, split.on(1 if transposed else 0))
            part = self.emit(relax.op.matmul(x, w, dtype))
            return Value(self.reduced(part, call.ty))
        if var in self.plan.columns:
            split = self.plan.columns[var]
            x = self.whole_of(call.args[0])
            w = self._weight(weight, transposed, split.on(0 if transposed else 1))
            return Value(relax.op.matmul(x, w, dtype), split)
        last = len(static_shape(call) or ()) - 1
        w = self._weight(weight, transposed, None)
        if given is None or given.axis == last:
            return Value(relax.op.matmul(self.whole_of(call.args[0]), w, dtype))
        return Value(relax.op.matmul(self.value(call.args[0]).expr, w, dtype), given)

    def _weight(self, weight: relax.Var, transposed: bool, split: Split | None) -> relax.Expr:
        held = self.held_for(weight.name, split)
        return self.emit(relax.op.permute_dims(held)) if transposed else held

    def _lookup(self, call: relax.Call) -> Value | None:
        """Rows ``ids`` of a table of which each rank has some; ids out of range are clipped."""
        table, ids = call.args
        shape = static_shape(table)
        if not self.is_weight(table) or shape is None or int(call.attrs.axis or 0) != 0:
            return None
        if str(call.attrs.mode) not in LOOKUP_MODES or static_shape(ids) is None:
            return None
        if shape[0] < self.parts or int(np.prod(shape)) < self.least or len(shape) != 2:
            return None
        split = Split(0, even(shape[0], self.parts))
        start, stop = split.ranges[self.rank]
        kind = str(ids.ty.dtype)
        known = self.emit(relax.op.clip(self.whole_of(ids), 0, shape[0] - 1))
        moved = self.emit(relax.op.subtract(known, relax.const(start, kind)))
        here = self.emit(relax.op.clip(moved, 0, stop - start - 1))
        rows = self.emit(relax.op.take(self.held_for(table.name, split), here, axis=0, mode="clip"))
        own = self.emit(relax.op.equal(moved, here))
        own = self.emit(relax.op.expand_dims(own, [-1]))
        zero = relax.const(0, str(call.ty.dtype))
        part = self.emit(relax.op.where(own, rows, zero))
        return Value(self.reduced(part, call.ty))

    def _elementwise(self, call: relax.Call) -> Value | None:
        shape = static_shape(call)
        splits = []
        for operand in call.args:
            given = self.split_of(operand)
            if given is not None and shape is not None:
                axis = given.axis + len(shape) - len(static_shape(operand) or ())
                splits.append(given.on(axis))
        if not splits or shape is None:
            return None
        # The narrowest of those on one axis: the others are cut to it where they are.
        split = next((s for s in splits if all(o.covers(s) for o in splits)), splits[0])
        args = []
        for at, operand in enumerate(call.args):
            if not isinstance(operand.ty, relax.TensorType):
                args.append(operand)
                continue
            own = operand_axis(call, split.axis, at)
            if own is None:
                args.append(self.whole_of(operand))
            else:
                args.append(self.parts_of(operand, split.on(own)))
        return Value(relax.Call(call.op, args, call.attrs, call.ty_args), split)

    def _attention(self, call: relax.Call) -> Value | None:
        split = self.split_of(call.args[0])
        if split is None or split.axis != HEADS:
            return None
        heads = {(static_shape(operand) or (0,) * 3)[HEADS] for operand in call.args[:3]}
        if len(heads) != 1:
            return None
        args = [self.parts_of(operand, split) for operand in call.args[:3]]
        for bias in call.args[3:]:
            shared = (static_shape(bias) or (1, 1))[BIAS_HEADS] == 1
            args.append(
                self.whole_of(bias) if shared else self.parts_of(bias, split.on(BIAS_HEADS))
            )
        return Value(relax.Call(call.op, args, call.attrs, call.ty_args), split)

    def _reshape(self, call: relax.Call) -> Value | None:
        split = self.split_of(call.args[0])
        before, after = static_shape(call.args[0]), static_shape(call)
        if split is None or before is None or after is None:
            return None
        split = reshaped(split, before, after)
        if split is None:
            return None
        part = self.value(call.args[0]).expr
        return Value(relax.op.reshape(part, split.local(after, self.rank)), split)

    def _concat(self, call: relax.Call) -> Value | None:
        fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else []
        split = next((s for s in map(self.split_of, fields) if s is not None), None)
        rank = len(static_shape(call) or ())
        axis = int(call.attrs.axis) % rank if rank else 0
        if split is None or split.axis == axis:
            return None
        return Value(relax.op.concat([self.parts_of(f, split) for f in fields], axis), split)

    def _batched(self, call: relax.Call) -> Value | None:
        """A product of two values of one batch, of which each rank has some."""
        rank = len(static_shape(call) or ())
        given = [self.split_of(operand) for operand in call.args]
        split = next((s for s in given if s is not None), None)
        whole = static_shape(call)
        if split is None or whole is None or split.axis >= rank - 2:
            return None
        shapes = [static_shape(operand) for operand in call.args]
        if any(s is None or len(s) != rank or s[split.axis] != whole[split.axis] for s in shapes):
            return None
        a, b = (self.parts_of(operand, split) for operand in call.args)
        return Value(relax.op.matmul(a, b, call.attrs.out_dtype or None), split)

    def _carried(self, call: relax.Call) -> Value | None:
        given = self.split_of(call.args[0]) if call.args else None
        axis = None if given is None else result_axis(call, given.axis)
        if given is None or axis is None:
            return None
        value, split = self.value(call.args[0]), given.on(axis)
        if op_name(call) == "relax.broadcast_to":
            shape = split.local(static_shape(call) or (), self.rank)
            return Value(relax.op.broadcast_to(value.expr, relax.ShapeExpr(shape)), split)
        args = [value.expr, *call.args[1:]]
        return Value(relax.Call(call.op, args, call.attrs, call.ty_args), split)


__all__ = ["SPLIT", "SplitTensors"]
