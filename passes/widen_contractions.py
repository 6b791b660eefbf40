"""Products and convolutions of half and bfloat16 in float32, for targets without units for them."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.rewrite import rewritten

_HALF = {"float16", "bfloat16"}
_CONTRACTIONS = {
    "relax.matmul",
    *(f"relax.nn.conv{n}d" for n in (1, 2, 3)),
    *(f"relax.nn.conv{n}d_transpose" for n in (1, 2, 3)),
}


@tvm.transform.module_pass(opt_level=0, name="WidenContractions")
@dataclass(frozen=True)
class WidenContractions:
    """Widen what a contraction in two bytes reads, and narrow its result once.

    A sum kept in two bytes would be rounded at every term; eager rounds it once, too. Weights are
    widened when they are folded, and take four bytes unless they are narrowed again.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, _Rewriter)


@mutator
class _Rewriter(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op) or call.op.name not in _CONTRACTIONS:
            return call
        dtypes = {str(arg.ty.dtype) for arg in call.args}
        if len(dtypes) > 1 or not dtypes <= _HALF or _names_result(call):
            return call
        emit = self.builder_.emit
        wide = [emit(relax.op.astype(arg, "float32")) for arg in call.args]
        made = emit(relax.Call(call.op, wide, call.attrs))
        return relax.op.astype(made, dtypes.pop())


def _names_result(call: relax.Call) -> bool:
    """Whether a contraction asks for a type of its result."""
    wanted = getattr(call.attrs, "out_dtype", None)
    return wanted is not None and str(wanted) not in ("", "None", "void")
