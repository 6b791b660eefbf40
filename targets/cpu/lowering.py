"""TVM's lowering of kernels to code: its own passes for a CPU, in its order, and seven changes.

1. TVM gives every buffer of scope ``local`` on a CPU memory from its workspace pool, whose address
   LLVM knows nothing of: accumulators then stay in memory, written back at every step. Buffers on
   the stack become registers.
2. Buffers are not made smaller (``CompactBufferAllocation``): ours have the sizes they need, and
   where loops have conditions TVM finds sizes in terms of another loop's variable.
3. Variables that expressions bind get a name for each place (``ConvertSSA``): vectorizing refuses
   one that is bound twice, as where a rounding is read twice.
4. The checks of a kernel's arguments are gathered (``argument_checks.py``).
5. No kernel is marked as its module's entry (``AnnotateEntryFunc``): LLVM would make a second copy
   of it, which nothing calls.
6. Divisors are positive (``divisors.py``), and buffers are made flat by our pass (``flatten.py``).
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import transform as S
from tvm.s_tir.pipeline import finalize_device_passes, finalize_host_passes
from tvm.tirx import AllocBuffer
from tvm.tirx import transform as X
from tvm.tirx.compilation_pipeline import PIPELINE_MAP

from burnish.targets.cpu import loops
from burnish.targets.cpu.argument_checks import gather_argument_checks
from burnish.targets.divisors import make_divisors_positive
from burnish.targets.flatten import FlattenBuffers

PIPELINE = "burnish.cpu"
"""Name of the pipeline, for ``relax.build(tir_pipeline=...)`` and ``tirx.build(pipeline=...)``."""
STACK_BYTES = 64 * 1024
"""The largest private buffer to put on the stack; threads of a pool have a megabyte or more."""


@tirx.transform.prim_func_pass(opt_level=0, name="PutLocalsOnStack")
def put_locals_on_stack(func: tirx.PrimFunc, _mod: Any, _ctx: Any) -> tirx.PrimFunc:
    """Mark allocations of scope ``local`` and constant size to stay allocations of the function."""

    def marked(allocation: AllocBuffer) -> AllocBuffer:
        buffer = allocation.buffer
        count = loops.as_int(loops.product(list(buffer.shape)))
        size = None if count is None else count * tvm.DataType(str(buffer.dtype)).itemsize
        if buffer.scope() != "local" or size is None or size > STACK_BYTES:
            return allocation
        return AllocBuffer(buffer, {"disable_lower_builtin": tirx.const(1, "int32")})

    return func.with_body(tvm_ffi.structural_map(func.body, [(AllocBuffer, marked)], order="post"))


def cpu_pipeline() -> tuple[Any, Any, Any]:
    """The passes, and those that TVM runs last on host and device code."""
    lower = tvm.transform.Sequential(
        [
            S.CanonicalizeLoop(),
            S.LowerInitBlock(),
            S.PlanAndUpdateBufferAllocationLocation(),
            S.ConvertBlocksToOpaque(),
            S.LowerMatchBuffer(),
            S.StmtSimplify(),
            make_divisors_positive,
            S.AnnotateIrregularLoop(),
            S.LowerOpaqueBlock(),
            FlattenBuffers(),
            X.BF16ComputeLegalize(),
            X.NarrowDataType(32),
            S.LoopPartition(),
            X.ConvertSSA(),
            X.VectorizeLoop(True),
            X.StorageRewrite(),
            S.HoistIfThenElse(),
            X.UnrollLoop(),
            S.RenormalizeSplitPattern(),
            X.StmtSimplify(),
            make_divisors_positive,
            X.RemoveNoOp(),
            S.RewriteUnsafeSelect(),
            X.CommonSubexprElim(),
            X.FP8ComputeLegalize(),
            X.VerifyMemory(),
            X.SplitHostDevice(),
            X.MakePackedAPI(),
            X.FP8StorageLegalize(),
            X.BF16StorageLegalize(),
            gather_argument_checks,
            put_locals_on_stack,
        ]
    )
    return lower, finalize_host_passes, finalize_device_passes


PIPELINE_MAP[PIPELINE] = cpu_pipeline
