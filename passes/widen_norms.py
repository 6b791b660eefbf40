"""Normalize bfloat16 by way of float32."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import op_name
from burnish.passes.rewrite import rewritten

NORMS = frozenset(f"relax.nn.{name}" for name in ("layer_norm", "instance_norm", "rms_norm"))


@tvm.transform.module_pass(opt_level=0, name="WidenNorms")
@dataclass(frozen=True)
class WidenNorms:
    """Put normalizations of bfloat16 between casts: TVM legalizes those of float32 and float16
    alone, its constant folding any it sees; and mean and variance want float32 anyway."""

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, _Rewriter)


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if op_name(call) not in NORMS or str(call.args[0].ty.dtype) != "bfloat16":
            return call
        emit = self.builder_.emit
        wide = [emit(relax.op.astype(arg, "float32")) for arg in call.args]
        return relax.op.astype(emit(relax.Call(call.op, wide, call.attrs)), "bfloat16")
