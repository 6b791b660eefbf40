"""Branches of ``If`` as functions of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.rewrite import rewritten


@tvm.transform.module_pass(opt_level=0, name="OutlineBranches")
@dataclass(frozen=True)
class OutlineBranches:
    """Move each branch of an ``If`` into a private function called with what it reads.

    Memory planning shares storage across the two branches of an ``If`` and leaves the second
    without; as functions, each is planned, and fused, by itself.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, _Outline)


def as_function(
    builder: relax.BlockBuilder, sequence: relax.SeqExpr, params: Sequence[relax.Var], name: str
) -> tuple[tvm.ir.GlobalVar, list[relax.Expr]]:
    """``sequence`` as a private function, and what it is called with after its ``params``.

    That is what it reads from around it, and the open sizes that no parameter tells.
    """
    own = set(params)
    around = [var for var in relax.analysis.free_vars(sequence) if var not in own]
    free = [var for var in around if not tvm.ir.is_prim_var(var)]  # sizes come below
    inner = {var: relax.Var(var.name, var.ty) for var in free}
    body = tvm_ffi.structural_map(sequence, [(relax.Var, lambda v: inner.get(v, v))])
    every = [*params, *inner.values()]
    arguments: list[relax.Expr] = list(free)
    func = relax.Function(every, body, sequence.body.ty, True)
    sizes = list(relax.analysis.free_symbolic_vars(func))
    if sizes:
        every.append(relax.Var("sizes", relax.ShapeType(sizes)))
        arguments.append(relax.ShapeExpr(sizes))
        func = relax.Function(every, body, sequence.body.ty, True)
    return builder.add_func(relax.utils.copy_with_new_vars(func), name), arguments


@mutator
class _Outline(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.wanted: tvm.ir.Type | None = None

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        outer, self.wanted = self.wanted, binding.var.ty
        super().visit_var_binding_(binding)
        self.wanted = outer

    def visit_if_(self, op: relax.If) -> relax.Expr:
        wanted = op.ty if self.wanted is None else self.wanted
        condition = self.visit_expr(op.cond)
        return relax.If(
            condition, self._called(op.true_branch, wanted), self._called(op.false_branch, wanted)
        )

    def _called(self, branch: relax.SeqExpr, wanted: tvm.ir.Type) -> relax.SeqExpr:
        """A call whose result has the type that both branches have."""
        branch = _of_type(self.visit_expr(branch), wanted)  # the branches within it first
        call = relax.Call(*as_function(self.builder_, branch, (), "branch"))
        result = relax.Var("result", wanted)
        return relax.SeqExpr([relax.BindingBlock([relax.VarBinding(result, call)])], result)


def _of_type(branch: relax.SeqExpr, wanted: tvm.ir.Type) -> relax.SeqExpr:
    """The branch with a result of this type, where passes wrote a size otherwise (t + 2 - 2)."""
    if _same(branch.body.ty, wanted):
        return branch
    bindings: list[relax.Binding] = []

    def cast(value: relax.Expr, ty: tvm.ir.Type) -> relax.Var:
        if isinstance(ty, relax.TupleType):
            parts = [
                cast(_bound(bindings, relax.TupleGetItem(value, i), field), ty.fields[i])
                for i, field in enumerate(value.ty.fields)
            ]
            return _bound(bindings, relax.Tuple(parts), ty)
        if _same(value.ty, ty):
            return value
        var = relax.Var("cast", ty)
        bindings.append(relax.MatchCast(var, value, ty))
        return var

    result = cast(branch.body, wanted)
    return relax.SeqExpr([*branch.blocks, relax.BindingBlock(bindings)], result)


def _bound(bindings: list[relax.Binding], value: relax.Expr, ty: tvm.ir.Type) -> relax.Var:
    var = relax.Var("part", ty)
    bindings.append(relax.VarBinding(var, value))
    return var


def _same(a: tvm.ir.Type, b: tvm.ir.Type) -> bool:
    return bool(tvm_ffi.structural_equal(a, b, map_free_vars=False))
