"""A finished module to an executable for a device that is not the CPU: host code and kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax.vm_build import _vmcodegen, _vmlink

from burnish.targets.device_lowering import PIPELINE


def device_executable(
    mod: tvm.IRModule, target: tvm.target.Target, opt_level: int, config: Mapping[str, Any]
) -> relax.VMExecutable:
    """What ``pipeline.build_passes`` gave, as code; ``config`` is for TVM's pass context."""
    builder = relax.ExecBuilder()
    left = _vmcodegen(builder, mod)
    kernels = {v: f for v, f in left.functions.items() if isinstance(f, tirx.PrimFunc)}
    constants = dict(mod.attrs).get("const_name_to_constant", {}) if mod.attrs else {}
    with target, tvm.transform.PassContext(opt_level=opt_level, config=dict(config)):
        return _vmlink(
            builder,
            target,
            tir_mod=tvm.IRModule(kernels),
            tir_pipeline=PIPELINE,
            params=dict(constants),
        )
