"""TVM's lowering of kernels to code, with private buffers on the stack.

TVM gives every buffer of scope ``local`` on a CPU memory from its workspace pool, whose address
LLVM knows nothing of: accumulators then stay in memory, written back at every step. Buffers on
the stack become registers.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir.pipeline import default_s_tir_pipeline
from tvm.tirx import AllocBuffer
from tvm.tirx.compilation_pipeline import PIPELINE_MAP

from burnish.targets.cpu import loops

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
    """TVM's own pipeline for scheduled kernels, then the marking of private buffers."""
    lower, finish_host, finish_device = default_s_tir_pipeline()
    return tvm.transform.Sequential([lower, put_locals_on_stack]), finish_host, finish_device


PIPELINE_MAP[PIPELINE] = cpu_pipeline
