"""Kernels to one library for an OpenCL device: their source, which the device's driver compiles.

No OpenCL is needed here. The library holds OpenCL C; whoever loads it compiles it there.
"""

from __future__ import annotations

from pathlib import Path

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Var

from burnish.compiler.device_executable import device_executable
from burnish.targets.opencl.target import PRESETS, OpenclTarget


def build_opencl_library(
    mod: tvm.IRModule, target: OpenclTarget, folder: Path, compiler: str, *, opt_level: int = 3
) -> Path:
    """Link the library of a finished module, what ``pipeline.build_passes`` give.

    Raises ``ValueError`` for kernels in half precision where ``target`` has none.
    """
    check_types(mod, target)
    executable = device_executable(mod, target.tvm(), opt_level, {})
    path = folder / "lib.so"
    executable.export_library(str(path), cc=compiler)
    return path


def check_types(mod: tvm.IRModule, target: OpenclTarget) -> None:
    """Raise ``ValueError`` for kernels in half precision where ``target`` has none."""
    if target.half:
        return
    for var, func in mod.functions.items():
        if isinstance(func, tirx.PrimFunc) and _has_half(func):
            others = ", ".join(preset.name for preset in PRESETS.values() if preset.half)
            raise ValueError(
                f"the kernel {var.name_hint} computes in float16, and a device of the target "
                f"{target.name!r} need not have it (the extension cl_khr_fp16): give the model in "
                f"float32, as model.float(), or compile it for a device that has it: {others}"
            )


def _has_half(func: tirx.PrimFunc) -> bool:
    """Whether a buffer of the kernel is of float16."""
    found = False

    def visit(var: Var) -> None:
        nonlocal found
        found = found or str(getattr(var.ty, "dtype", "")) == "float16"

    for param in func.params:
        visit(param)
    tvm_ffi.structural_walk(func.body, [(Var, visit)], order="post")
    return found
