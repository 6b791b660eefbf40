"""Whether a laid-out kernel keeps within a device: work items of a group, local memory."""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx

from burnish.targets.opencl.target import OpenclTarget

_LOWER = tvm.transform.Sequential(
    [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerCrossThreadReduction(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.LiftThreadBinding(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerAutoCopy(),
        s_tir.transform.UnifyThreadBinding(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
    ]
)
"""As far as TVM's own pipeline goes before local memory has its final size."""


def fits(func: tirx.PrimFunc, target: OpenclTarget) -> bool:
    """Whether every launch of ``func`` keeps the limits of ``target``.

    Sums across the work items of a group take one more element each, of 8 bytes at most.
    """
    lowered = _LOWER(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))["main"]
    return bool(
        s_tir.analysis.verify_gpu_code(
            lowered,
            {
                "max_threads_per_block": target.work_group,
                "max_shared_memory_per_block": target.local_memory - 8 * target.work_group,
            },
        )
    )
