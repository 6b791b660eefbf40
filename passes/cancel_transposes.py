"""Transposes that undo each other."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.rewrite import rewritten


@tvm.transform.module_pass(opt_level=0, name="CancelTransposes")
@dataclass(frozen=True)
class CancelTransposes:
    """Compose ``permute_dims`` of ``permute_dims``; exact.

    1. Two in a row become one.
    2. One that keeps every axis in place disappears.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return relax.transform.DeadCodeElimination()(rewritten(mod, _Cancel))


@mutator
class _Cancel(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)

    def visit_call_(self, call: relax.Call) -> relax.Expr:  # type: ignore[override]
        call = super().visit_call_(call)
        axes = _axes(call)
        if axes is None:
            return call
        source = call.args[0]
        inner = self.lookup_binding(source) if isinstance(source, relax.Var) else None
        below = _axes(inner) if isinstance(inner, relax.Call) else None
        if below is not None:
            axes = tuple(below[axis] for axis in axes)
            source = inner.args[0]
        if axes == tuple(range(len(axes))):
            return source
        return relax.op.permute_dims(source, list(axes)) if below is not None else call


def _axes(call: relax.Call) -> tuple[int, ...] | None:
    """The order of a transpose, or ``None`` for anything else."""
    if not isinstance(call.op, tvm.ir.Op) or call.op.name != "relax.permute_dims":
        return None
    rank = int(call.args[0].ty.ndim)
    if call.attrs.axes is None:
        return tuple(reversed(range(rank)))
    return tuple(int(axis) % rank for axis in call.attrs.axes)
