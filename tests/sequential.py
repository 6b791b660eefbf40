"""A kernel laid out for a GPU, made one that a CPU runs: threads take turns.

Loops over threads become plain ones, memory of warps and blocks plain memory, and notes to the
compiler of GPUs go. Right for kernels that say what they compute in loops alone, where each
buffer holds all that its threads put in.
"""

from __future__ import annotations

import tvm_ffi
from tvm import tirx
from tvm.ir import Var
from tvm.tirx import For


def sequential(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """``func`` for one thread."""
    plain: dict[Var, Var] = {}

    def var(old: Var) -> Var:
        if not isinstance(old.ty, tirx.buffer.BufferType) or old.scope() == "global":
            return old
        if old not in plain:
            plain[old] = tirx.decl_buffer(
                old.shape,
                old.dtype,
                old.name,
                elem_offset=Var("start", "int32") if isinstance(old.elem_offset, Var) else None,
            )
        return plain[old]

    def loop(old: For) -> For:
        return For(old.loop_var, old.min, old.extent, tirx.ForKind.SERIAL, old.body)

    body = tvm_ffi.structural_map(func.body, [(Var, var), (For, loop)], order="post")
    return tirx.PrimFunc(func.params, body, func.ret_type, func.attrs)
