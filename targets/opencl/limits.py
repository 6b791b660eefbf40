"""Whether a laid-out kernel keeps within a device: work items of a group, local memory."""

from __future__ import annotations

import math

import tvm
import tvm_ffi
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

    Sums across the work items of a group take one more element each, of 8 bytes at most. What
    is only known when the model runs is checked then, by the runtime.
    """
    lowered = _LOWER(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))["main"]
    most: dict[str, int] = {}
    local = 8 * target.work_group

    def launch(node: tirx.AttrStmt) -> None:
        if node.attr_key == "thread_extent" and isinstance(node.value, tirx.IntImm):
            name = str(node.node.thread_tag)
            most[name] = max(most.get(name, 1), int(node.value))

    def allocate(node: tirx.AllocBuffer) -> None:
        nonlocal local
        buffer = node.buffer
        if buffer.scope() == "shared" and all(isinstance(n, tirx.IntImm) for n in buffer.shape):
            size = tvm.DataType(str(buffer.dtype)).itemsize
            local += math.prod(map(int, buffer.shape)) * size

    tvm_ffi.structural_walk(lowered.body, [(tirx.AttrStmt, launch), (tirx.AllocBuffer, allocate)])
    items = math.prod(n for name, n in most.items() if name.startswith("threadIdx."))
    return items <= target.work_group and local <= target.local_memory
