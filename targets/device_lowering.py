"""TVM's lowering of kernels for devices, in its order, and two changes.

1. Buffers are made flat by our pass (``flatten.py``): TVM's drops parts of an index.
2. Divisors are positive after each simplification (``divisors.py``).
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import transform as S
from tvm.s_tir.pipeline import finalize_host_passes
from tvm.tirx import transform as X
from tvm.tirx.compilation_pipeline import PIPELINE_MAP

from burnish.targets.divisors import make_divisors_positive
from burnish.targets.flatten import FlattenBuffers

PIPELINE = "burnish.device"
"""Name of the pipeline, for ``relax.build(tir_pipeline=...)`` and ``tirx.build(pipeline=...)``."""
ASYNC_COPY = "tirx.use_async_copy"
"""Whether copies to shared memory may be asynchronous, in the pass context."""


@tvm.transform.module_pass(opt_level=0, name="LowerForDevice")
def lower_for_device(mod: tvm.IRModule, context: tvm.transform.PassContext) -> tvm.IRModule:
    """Scheduled kernels to host and device functions."""
    copies = bool(context.config.get(ASYNC_COPY, False))
    passes = [
        S.CanonicalizeLoop(),
        S.LowerCrossThreadReduction(),
        S.LowerInitBlock(),
        S.PlanAndUpdateBufferAllocationLocation(),
        S.ConvertBlocksToOpaque(),
        S.LiftThreadBinding(),
        S.ManifestSharedMemoryLocalStage(),
        S.CompactBufferAllocation(),
        S.LowerAutoCopy(),
        S.UnifyThreadBinding(),
        S.LowerMatchBuffer(),
        S.StmtSimplify(),
        make_divisors_positive,
        S.InjectPermutedLayout(),
        S.AnnotateIrregularLoop(),
        S.InjectSoftwarePipeline(),
        S.TransformMmaBufferLayout(),
        S.LowerOpaqueBlock(),
        FlattenBuffers(),
        make_divisors_positive,
        X.BF16ComputeLegalize(),
        X.NarrowDataType(32),
        S.LoopPartition(),
        X.VectorizeLoop(True),
        S.InjectVirtualThread(),
        S.InjectDoubleBuffer(),
        X.StorageRewrite(),
        *([S.LowerAsyncDMA()] if copies else []),
        S.HoistIfThenElse(),
        X.UnrollLoop(),
        S.RenormalizeSplitPattern(),
        X.StmtSimplify(),
        make_divisors_positive,
        X.RemoveNoOp(),
        S.RewriteUnsafeSelect(),
        X.CommonSubexprElim(),
        X.FP8ComputeLegalize(),
        S.VerifyVTCMLimit(),
        S.LowerVtcmAlloc(),
        X.VerifyMemory(),
        X.AnnotateEntryFunc(),
        S.ThreadSync("shared"),
        S.ThreadSync("shared.dyn"),
        S.ThreadSync("warp"),
        S.InferFragment(),
        S.LowerThreadAllreduce(),
        *([S.InjectPTXAsyncCopy()] if copies else []),
        S.MergeSharedMemoryAllocations(),
        X.SplitHostDevice(),
        X.MakePackedAPI(),
        X.FP8StorageLegalize(),
        X.BF16StorageLegalize(),
    ]
    return tvm.ir.transform.Sequential(passes)(mod)


def device_pipeline() -> tuple[Any, Any, Any]:
    """The passes, and those that TVM runs last on host and device code."""
    last = [X.LowerWarpMemory(), X.StmtSimplify(), make_divisors_positive, X.LowerIntrin()]
    return lower_for_device, finalize_host_passes, lambda: tvm.ir.transform.Sequential(last)


PIPELINE_MAP[PIPELINE] = device_pipeline
