"""Split the large weights of one model over processes that run it together."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.passes.graph import bindings, op_name
from burnish.passes.params import get_params, input_vars, with_main, with_params
from burnish.passes.split_operators import SplitOperators
from burnish.passes.split_plan import planned
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


class _Rewriter:
    """``main`` being written anew for one rank."""

    def __init__(self, mod: tvm.IRModule, options: SplitTensors) -> None:
        self.mod, self.main = mod, mod["main"]
        self.here = Parts(mod, options.rank)
        self.split = [options.rank, options.parts]
        own = set(self.here.weights.values())
        self.plan = planned(self.main, own, options.parts, options.least)
        self.operators = SplitOperators(self.here, self.plan, options.parts, options.least)
        self.unread = self._unread()

    def _unread(self) -> set[relax.Var]:
        """Transposed weights that only planned products read: these write them anew."""
        read: dict[relax.Var, bool] = {}
        for binding in bindings(self.main):
            for var in relax.analysis.free_vars(binding.value):
                read[var] = read.get(var, True) and binding.var in self.plan.weights
        for var in relax.analysis.free_vars(self.main.body.body):
            read[var] = False
        return {b.var for b in bindings(self.main) if read.get(b.var) and self._turned(b.value)}

    def _turned(self, value: relax.Expr) -> bool:
        """Whether it is the transpose of a weight."""
        return op_name(value) == "relax.permute_dims" and self.here.is_weight(value.args[0])

    def module(self) -> tvm.IRModule:
        """``mod`` with that, and with this rank's parts of the weights."""
        here, inputs = self.here, []
        for var in input_vars(self.mod):
            inputs.append(relax.Var(var.name, var.ty))
            here.values[var] = Value(inputs[-1])
        blocks = []
        for block in self.main.body.blocks:
            dataflow = isinstance(block, relax.DataflowBlock)
            here.begin(relax.DataflowVar if dataflow else relax.Var)
            for binding in block.bindings:
                self._binding(binding)
            blocks.append((relax.DataflowBlock if dataflow else relax.BindingBlock)(here.block))
        here.begin(relax.Var)
        result = here.renamed(self.main.body.body)
        if here.block:
            blocks.append(relax.BindingBlock(here.block))
        held = here.parameters()
        func = relax.Function(
            [*inputs, *held.values()],
            relax.SeqExpr(blocks, result),
            self.main.ret_ty,
            self.main.is_pure,
            self.main.attrs,
        ).with_attr(SPLIT, self.split)
        values = get_params(self.mod)
        params = {
            var.name: here.part_of(values[name], split)
            for (name, split), var in held.items()
            if name in values
        }
        new = relax.transform.Normalize()(with_params(with_main(self.mod, func), params))
        return relax.transform.DeadCodeElimination(["main"])(new)

    def _binding(self, binding: relax.Binding) -> None:
        if binding.var in self.unread:
            return
        here, value = self.here, binding.value
        here.name = binding.var.name
        if isinstance(binding, relax.VarBinding):
            if isinstance(value, relax.Var):
                here.values[binding.var] = here.value(value)
                return
            made = self.operators.split(binding.var, value)
            if made is not None:
                inner = isinstance(binding.var, relax.DataflowVar)
                known = inner and isinstance(made.expr, relax.Var)
                var = made.expr if known else here.emit(made.expr, type(binding.var))
                here.values[binding.var] = Value(var, made.split)
                return
        var = type(binding.var)(binding.var.name, binding.var.ty)
        value = here.renamed(value)
        if isinstance(binding, relax.MatchCast):
            here.block.append(relax.MatchCast(var, value, binding.ty))
        else:
            here.block.append(relax.VarBinding(var, value))
        here.values[binding.var] = Value(var)


__all__ = ["SPLIT", "SplitTensors"]
