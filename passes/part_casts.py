"""Casts of bfloat16 to float32 as kernels of their own."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax, te
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import op_name
from burnish.passes.rewrite import rewritten

_OPAQUE = 8


@tvm.transform.module_pass(opt_level=0, name="PartCasts")
@dataclass(frozen=True)
class PartCasts:
    """Keep casts of bfloat16 to float32 out of the kernels of what they read.

    TVM's vectorizer gives a number that is rounded to bfloat16 and read as float32 again, in one
    vector loop, twice its lanes. Casts of parameters are left to what reads them.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, _Rewriter)


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if op_name(call) != "relax.astype" or str(call.ty.dtype) != "float32":
            return call
        (value,) = call.args
        made = isinstance(value, relax.Var) and self.lookup_binding(value) is not None
        if str(value.ty.dtype) != "bfloat16" or not made:
            return call
        return self.builder_.call_te(
            _widened, value, primfunc_name_hint="widen", primfunc_attrs={"op_pattern": _OPAQUE}
        )


def _widened(x: te.Tensor) -> te.Tensor:
    return te.compute(x.shape, lambda *at: x(*at).astype("float32"), name="widened")
