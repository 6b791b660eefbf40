"""Kernels with names that files can have."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import GlobalVar
from tvm.relax.expr import _update_type


@tvm.transform.module_pass(opt_level=0, name="ShortenNames")
@dataclass(frozen=True)
class ShortenNames:
    """Cut names of kernels to ``longest`` characters, the last eight of them a hash of the whole.

    Fusion names a kernel by all that is in it. OpenCL drivers name files after kernels, and fail
    where a file system allows no name of that length.
    """

    longest: int = 80

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        names: dict[GlobalVar, GlobalVar] = {}
        for var, func in mod.functions.items():
            if isinstance(func, tirx.PrimFunc) and len(var.name_hint) > self.longest:
                digest = hashlib.sha256(var.name_hint.encode()).hexdigest()[:8]
                names[var] = GlobalVar(f"{var.name_hint[: self.longest - 9]}_{digest}")
                _update_type(names[var], var.ty)
        if not names:
            return mod

        def renamed(func: Any) -> Any:
            return tvm_ffi.structural_map(func, [(GlobalVar, lambda var: names.get(var, var))])

        functions = {}
        for var, func in mod.functions.items():
            new = names.get(var, var)
            if isinstance(func, tirx.PrimFunc):
                named = new is not var and func.attrs and "global_symbol" in func.attrs
                functions[new] = func.with_attr("global_symbol", new.name_hint) if named else func
            else:
                functions[new] = renamed(func)
        return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)
