"""The default schedule of a CUDA kernel: the first rule that applies.

0. ``attention``  as one kernel; ``recurrence``  LSTM, GRU and RNN: a block a row
1. ``matvec``  products of few rows
2. ``split``  products with long sums and few tiles: sums in parts, by the rules for products
3. ``warp-group``  products of two-byte floats and int8 on ``sm_90a``, by our own rule
4. ``tensor-core``  the same and tf32 on all tensor cores, by our own rule
5. ``small products``  batches of products of at most 64 rows and columns
6. ``matmul``, ``gemv``  dlight's, of TVM
7. ``rows``  softmax, norms, sums and extremes of rows, by our own rule
8. ``reduction``, ``general-reduction``  dlight's
9. ``fallback``     dlight's: every element a thread, whatever the kernel does
10. ``one item``  what has its order in loops of its own: one thread does it all

A rule that does not apply, or breaks on an odd shape, gives way to the next one; the name of the
rule that laid a kernel out is in its attribute.
"""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir import dlight

from burnish.targets.cuda import attention, products, split, tensor_core, wgmma
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.gpu import matvec, recurrence, rows, small_products
from burnish.targets.gpu.launch import Device
from burnish.targets.rules import RULE, Rule, dlight_rule, laid_out
from burnish.targets.serial import one_item

DEVICE = Device(threads=1024, shared=48 * 1024, shuffles=True)
"""What every GPU has, with no more shared memory than a kernel may have without asking."""
_FEWER_ROWS = 4
"""Of a product that tensor cores could take: with more they are as fast, and less busy."""


def _few_rows(func: tirx.PrimFunc, target: CudaTarget) -> tirx.PrimFunc | None:
    def most(dtype: str) -> int:
        return _FEWER_ROWS if products.takes(dtype, target) else matvec.ROWS

    return matvec.emit(func, DEVICE, most)


_MATMUL: Rule[CudaTarget] = dlight_rule(dlight.gpu.Matmul())

RULES: dict[str, Rule[CudaTarget]] = {
    "attention": attention.emit,
    "recurrence": lambda func, _target: recurrence.emit(func, DEVICE),
    "matvec": _few_rows,
    "split": split.rule([wgmma.emit, tensor_core.emit, _MATMUL]),
    "warp-group": wgmma.emit,
    "tensor-core": tensor_core.emit,
    "small products": lambda func, _target: small_products.emit(func, DEVICE),
    "matmul": _MATMUL,
    "gemv": dlight_rule(dlight.gpu.GEMV()),
    "rows": lambda func, _target: rows.emit(func, DEVICE),
    "reduction": dlight_rule(dlight.gpu.Reduction()),
    "general-reduction": dlight_rule(dlight.gpu.GeneralReduction()),
    "fallback": dlight_rule(dlight.gpu.Fallback()),
    "one item": one_item,
}


def schedule(func: tirx.PrimFunc, target: CudaTarget) -> tirx.PrimFunc:
    """``func`` laid out for the GPU: same parameters, same results.

    Raises ``ValueError`` for a kernel that no rule lays out.
    """
    with target.tvm():
        return laid_out(func, target, RULES)


__all__ = ["RULE", "RULES", "schedule"]
