"""Names that C has, for the buffers that a kernel takes: weights are called as their model says."""

from __future__ import annotations

import re

import tvm_ffi
from tvm import tirx
from tvm.tirx import Var

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def with_c_names(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """``func`` with parameters called ``layers_0_weight`` for ``layers/0.weight``, ``v_2_weight``
    for ``2.weight``: generators of C keep a slash, and a digit at the start."""
    renamed = {
        param: Var(_c_name(param.name), param.ty)
        for param in func.params
        if not _NAME.fullmatch(param.name)
    }
    if not renamed:
        return func
    body = tvm_ffi.structural_map(
        func.body, [(Var, lambda var: renamed.get(var, var))], order="post"
    )
    params = [renamed.get(param, param) for param in func.params]
    return tirx.PrimFunc(params, body, func.ret_type, func.attrs)


def _c_name(name: str) -> str:
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"v_{name}" if name[:1].isdigit() or not name else name
