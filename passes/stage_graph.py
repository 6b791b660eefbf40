"""A graph that is to be cut: its bindings by name, and what is known of each value."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
from tvm import relax

from burnish.passes.graph import op_name
from burnish.passes.params import input_vars, weight_vars

OPAQUE = ("relax.call_", "relax.invoke_", "relax.vm.", "relax.builtin.", "relax.random.")
"""Operators that may give another value when they run again."""


class StageGraph:
    """``main`` as a list of bindings, and what is known of each value."""

    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod, self.main = mod, mod["main"]
        body = self.main.body
        everything = [b for block in body.blocks for b in block.bindings]
        self.dataflow = all(isinstance(block, relax.DataflowBlock) for block in body.blocks)
        bound = {binding.var: binding for binding in everything}
        self.body = body.body
        while isinstance(self.body, relax.Var) and self.body in bound:
            value = getattr(bound[self.body], "value", None)
            if not isinstance(value, relax.Tuple | relax.Var):
                break
            self.body = value
        last = everything[-1] if everything else None
        if last is not None and isinstance(getattr(last, "value", None), relax.Tuple):
            everything = everything[:-1] if body.body.same_as(last.var) else everything
        self.bindings = everything
        self.inputs, self.weights = input_vars(mod), set(weight_vars(mod))
        self.names = _unique([b.var.name for b in everything], {v.name for v in self.main.params})
        self.place = {binding.var: at for at, binding in enumerate(everything)}
        self.name = {b.var: n for b, n in zip(everything, self.names, strict=True)}
        self.name.update((var, var.name) for var in self.inputs)
        self.read = [tuple(relax.analysis.free_vars(b.value)) for b in everything]
        self.again: set[relax.Var] = set()
        for binding, read in zip(everything, self.read, strict=True):
            fixed = all(v in self.again or v in self.weights for v in read)
            if not crosses(binding.var.ty) or (fixed and _repeatable(binding)):
                self.again.add(binding.var)

    def results(self) -> list[relax.Expr]:
        return list(self.body.fields) if isinstance(self.body, relax.Tuple) else [self.body]

    def result_name(self, value: relax.Expr, at: int) -> str:
        known = isinstance(value, relax.Var) and value in self.name and value not in self.again
        return self.name[value] if known else f"result.{at}"

    def closed(self, variables: set[relax.Var]) -> set[relax.Var]:
        """With what is read by those that are computed again where they are read."""
        pending, found = list(variables), set(variables)
        while pending:
            var = pending.pop()
            if var in self.again:
                fresh = set(self.read[self.place[var]]) - found
                found |= fresh
                pending.extend(fresh)
        return found


def crosses(ty: tvm.ir.Type) -> bool:
    """Whether a value is a tensor, or a tuple of them."""
    if isinstance(ty, relax.TupleType):
        return all(map(crosses, ty.fields))
    return isinstance(ty, relax.TensorType)


def _repeatable(binding: relax.Binding) -> bool:
    value = binding.value
    if isinstance(value, relax.Call):
        name = op_name(value)
        return bool(name) and not name.startswith(OPAQUE)
    return isinstance(value, relax.Tuple | relax.TupleGetItem | relax.Var | tvm.ir.Constant)


def _unique(names: Sequence[str], taken: set[str]) -> tuple[str, ...]:
    """The names, those that were there before with a number after them."""
    used, found = set(taken), []
    for name in names:
        new, count = name, 1
        while new in used:
            count += 1
            new = f"{name}_{count}"
        used.add(new)
        found.append(new)
    return tuple(found)


__all__ = ["StageGraph", "crosses"]
