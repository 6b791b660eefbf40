"""Running an expression mutator over every Relax function of a module, into a new module."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator


def rewritten(mod: tvm.IRModule, make: Callable[[tvm.IRModule], PyExprMutator]) -> tvm.IRModule:
    """``mod`` with ``make(mod)`` applied to its Relax functions; the argument is untouched."""
    rewriter = make(mod)
    for var, func in mod.functions.items():
        if isinstance(func, relax.Function):
            rewriter.builder_.update_func(var, rewriter.visit_expr(func))
    new = rewriter.builder_.get()
    return tvm.IRModule(dict(new.functions.items()), attrs=mod.attrs, global_infos=mod.global_infos)
