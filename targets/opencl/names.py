"""Names that C has for the buffers of a kernel."""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Var


def renamed(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """``func`` with a letter before names that begin with a digit, as that of ``2.weight``."""
    changes = {p: Var(f"v_{p.name}", p.ty) for p in func.params if p.name[:1].isdigit()}
    if not changes:
        return func
    body = tvm_ffi.structural_map(func.body, [(Var, lambda var: changes.get(var, var))])
    params = [changes.get(param, param) for param in func.params]
    return tirx.PrimFunc(params, body, func.ret_type, func.attrs, func.span)
