"""Look up rows of a quantized table without making the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, te, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.dequantize import CodeLayout, dequantized_value
from burnish.passes.graph import bindings, op_name
from burnish.passes.quantize import quantized_layout

BOUNDS: dict[str, Callable[[Any, int], Any]] = {
    "fast": lambda i, _size: i,
    "clip": lambda i, size: tirx.max(tirx.min(i, tirx.const(size - 1, "int64")), 0),
    "wrap": lambda i, size: tirx.floormod(i, tirx.const(size, "int64")),
}


@tvm.transform.module_pass(opt_level=0, name="DequantizeRows")
@dataclass(frozen=True)
class DequantizeRows:
    """Rewrite ``take(dequantize(w), i)`` to one kernel that dequantizes the rows it looks up.

    TVM's ``take`` does not fuse with what makes its table, so a 4-bit embedding would be
    written out in full at each call. Exact. Declines the mode ``nan``.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return _Rewriter(mod).module()


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(
            tvm.IRModule(
                dict(mod.functions.items()),
                attrs=mod.attrs,
                global_infos=dict(mod.global_infos.items()),
            )
        )
        self.mod = mod
        self.tables: dict[relax.Var, tuple[CodeLayout, list[relax.Var]]] = {}
        for binding in bindings(mod["main"]):
            layout = quantized_layout(mod, binding.value)
            if layout is not None:
                self.tables[binding.var] = (layout, list(binding.value.args[1].fields))

    def module(self) -> tvm.IRModule:
        if not self.tables:
            return self.mod
        main = self.visit_expr(self.mod["main"])
        self.builder_.update_func(self.mod.get_global_var("main"), main)
        return relax.transform.DeadCodeElimination(["main"])(self.builder_.get())

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if op_name(call) != "relax.take":
            return super().visit_call_(call)
        bound = BOUNDS.get(str(call.attrs.mode))
        if call.args[0] not in self.tables or call.attrs.axis is None or bound is None:
            return super().visit_call_(call)
        layout, stored = self.tables[call.args[0]]
        axis = int(call.attrs.axis)
        rank = call.args[1].ty.ndim

        def rows(ids: te.Tensor, *inputs: te.Tensor) -> te.Tensor:
            def value(*index: tirx.Expr) -> tirx.Expr:
                row = ids(*index[axis : axis + rank]).astype("int64")
                row = bound(row, layout.shape[axis])
                where = [*index[:axis], row, *index[axis + rank :]]
                return dequantized_value(layout, inputs, where)

            sides = [tirx.IntImm("int64", n) for n in layout.shape]
            out = [*sides[:axis], *ids.shape, *sides[axis + 1 :]]
            return te.compute(out, value, name="dequantize_rows")

        ids = self.visit_expr(call.args[1])
        return self.builder_.call_te(rows, ids, *stored, primfunc_name_hint="dequantize_rows")
