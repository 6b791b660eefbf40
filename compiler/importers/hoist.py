"""Weights laid out anew in a round, taken out of it: they are the same in every round."""

from __future__ import annotations

from collections.abc import Sequence

import tvm
import tvm_ffi
from tvm import relax, tirx

_LAYOUTS = {
    *("relax.permute_dims", "relax.reshape", "relax.expand_dims", "relax.squeeze"),
    *("relax.broadcast_to", "relax.astype"),
}


def hoisted(
    bb: relax.BlockBuilder, sequence: relax.SeqExpr, params: Sequence[relax.Var]
) -> relax.SeqExpr:
    """``sequence`` without the layouts that do not depend on ``params``, which are emitted here.

    Only those of sizes known at import; what else does not change is left where it is.
    """
    inside = set(params)
    outside: dict[relax.Var, relax.Expr] = {}

    def renamed(expr: relax.Expr) -> relax.Expr:
        if not outside:
            return expr
        return tvm_ffi.structural_map(expr, [(relax.Var, lambda v: outside.get(v, v))])

    blocks = []
    for block in sequence.blocks:
        kept = []
        for binding in block.bindings:
            if _is_layout(binding) and not inside & set(relax.analysis.free_vars(binding.value)):
                outside[binding.var] = bb.emit(renamed(binding.value))
            else:
                inside.add(binding.var)
                kept.append(binding)
        blocks.append(relax.BindingBlock(kept))
    return renamed(relax.SeqExpr(blocks, sequence.body)) if outside else sequence


def _is_layout(binding: relax.Binding) -> bool:
    call = getattr(binding, "value", None)
    if not isinstance(binding, relax.VarBinding) or not isinstance(call, relax.Call):
        return False
    if not isinstance(call.op, tvm.ir.Op) or call.op.name not in _LAYOUTS:
        return False
    shape = getattr(binding.var.ty, "shape", None)
    known = shape is not None and all(isinstance(size, tirx.IntImm) for size in shape)
    return known and any(isinstance(value, relax.Var) for value in call.args)
