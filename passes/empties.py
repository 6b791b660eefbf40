"""Constants without elements as allocations: TVM's executables cannot be read back with them."""

from __future__ import annotations

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.rewrite import rewritten


@tvm.transform.module_pass(opt_level=0, name="AllocateEmpties")
class AllocateEmpties:
    """Give results that are constants without elements an allocation of their shape."""

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        found: list[relax.Expr] = []

        def visit(expr: relax.Expr) -> None:
            if _is_empty(expr):
                found.append(expr)

        for function in mod.functions.values():
            if isinstance(function, relax.Function):
                relax.analysis.post_order_visit(function, visit)
        return rewritten(mod, _Allocate) if found else mod


def _is_empty(expr: relax.Expr) -> bool:
    return isinstance(expr, tvm.ir.GenericConst) and 0 in expr.value.shape


@mutator
class _Allocate(PyExprMutator):
    def visit_generic_const_(self, const: tvm.ir.GenericConst) -> relax.Expr:
        if not _is_empty(const):
            return const
        shape = relax.ShapeExpr([tirx.const(int(n), "int64") for n in const.value.shape])
        made = relax.op.builtin.alloc_tensor(shape, str(const.value.dtype), 0)
        return self.builder_.emit(made)
