"""Branches of ``If`` as functions of their own."""

from __future__ import annotations

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


@mutator
class _Outline(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)

    def visit_if_(self, op: relax.If) -> relax.Expr:
        return relax.If(
            self.visit_expr(op.cond), self._called(op.true_branch), self._called(op.false_branch)
        )

    def _called(self, branch: relax.SeqExpr) -> relax.SeqExpr:
        free = list(relax.analysis.free_vars(branch))
        params = [relax.Var(var.name, var.ty) for var in free]
        mapping = dict(zip(free, params, strict=True))
        body = tvm_ffi.structural_map(branch, [(relax.Var, lambda v: mapping.get(v, v))])
        func = relax.Function(params, body, branch.body.ty, True)
        target = self.builder_.add_func(relax.utils.copy_with_new_vars(func), "branch")
        call = relax.Call(target, [self.visit_expr(var) for var in free])
        result = relax.Var("result", branch.body.ty)
        block = relax.BindingBlock([relax.VarBinding(result, call)])
        return relax.SeqExpr([block], result)
