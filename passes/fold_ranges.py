"""Ranges of whole numbers known at compile time become constants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import op_name
from burnish.passes.rewrite import rewritten

MOST = 1 << 20
"""Elements of a range that is written out at most: 8 MB."""


@tvm.transform.module_pass(opt_level=0, name="FoldRanges")
@dataclass(frozen=True)
class FoldRanges:
    """Rewrite ``arange(start, end, step)`` of known integers to a constant; exact.

    Positions and the places that padding by mirrors reads from are computed from such ranges;
    constant folding goes on from there.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, _Folder)


@mutator
class _Folder(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if op_name(call) != "relax.arange":
            return call
        bounds = [_known(argument) for argument in call.args]
        dtype = str(call.attrs.dtype)
        if any(bound is None for bound in bounds) or not dtype.startswith(("int", "uint")):
            return call
        start, end, step = (int(bound) for bound in bounds if bound is not None)
        if len(range(start, end, step)) > MOST:
            return call
        return relax.const(np.arange(start, end, step, dtype=dtype), dtype)


def _known(value: relax.Expr) -> int | None:
    inner = getattr(value, "value", value)
    return int(inner) if isinstance(inner, tirx.IntImm | int) else None
