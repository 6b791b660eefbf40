"""The default schedule of an OpenCL kernel: the first rule that applies and fits the device.

0. ``attention``, ``scans``, ``recurrence``  attention as one kernel; running sums and products;
   LSTM, GRU and RNN: by our own rules
1. ``matvec``, ``small products``  products of up to eight rows, and batches of small ones: ours
2. ``matmul``, ``gemv``  dlight's, of TVM
3. ``rows``, ``vectors``  softmax, norms and the like; element-wise maps by vectors: ours
4. ``reduction``, ``general-reduction``  dlight's
5. ``fallback``  dlight's: every element a work item, whatever the kernel does
6. ``one item``  what has its order in loops of its own: one work item does it all

A rule whose result takes more work items or local memory than the device has gives way to the
next one, as one that does not apply.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import tvm
from tvm import tirx
from tvm.s_tir import dlight

from burnish.targets.gpu import matvec, recurrence, rows, small_products, vector_maps
from burnish.targets.gpu.launch import Device
from burnish.targets.opencl import attention, scans
from burnish.targets.opencl.limits import fits
from burnish.targets.opencl.target import OpenclTarget
from burnish.targets.rules import RULE, Rule, dlight_rule, laid_out
from burnish.targets.serial import one_item

_ITEMS = 256
"""More of them in a group are refused by drivers that give each many registers."""


def device_of(target: OpenclTarget) -> Device:
    """What our own rules may use; ``fits`` keeps 8 bytes a work item for what TVM adds."""
    shared = target.local_memory - 8 * target.work_group
    return Device(min(target.work_group, _ITEMS), shared, vector=4 * target.vector)


@dataclass(frozen=True)
class _Matmul(dlight.gpu.Matmul):
    """TVM's, with the device's vectors where TVM takes none."""

    vector: int

    def get_configs(self, target: tvm.target.Target) -> dlight.gpu.Matmul.Config:
        found = super().get_configs(target)
        lanes = min(self.vector, found.micro_size_x, found.micro_size_y)
        if lanes <= found.vector_size:
            return found
        return replace(found, vector_size=lanes, storage_align=found.use_shared)


def _matmul(func: tirx.PrimFunc, target: OpenclTarget) -> tirx.PrimFunc | None:
    return dlight_rule(_Matmul(target.vector))(func, target)


RULES: dict[str, Rule[OpenclTarget]] = {
    "attention": attention.emit,
    "scans": scans.emit,
    "recurrence": lambda func, target: recurrence.emit(func, device_of(target)),
    "matvec": lambda func, target: matvec.emit(func, device_of(target)),
    "small products": lambda func, target: small_products.emit(func, device_of(target)),
    "matmul": _matmul,
    "gemv": dlight_rule(dlight.gpu.GEMV()),
    "rows": lambda func, target: rows.emit(func, device_of(target)),
    "vectors": lambda func, target: vector_maps.emit(func, device_of(target)),
    "reduction": dlight_rule(dlight.gpu.Reduction()),
    "general-reduction": dlight_rule(dlight.gpu.GeneralReduction()),
    "fallback": dlight_rule(dlight.gpu.Fallback()),
    "one item": one_item,
}


def schedule(func: tirx.PrimFunc, target: OpenclTarget) -> tirx.PrimFunc:
    """``func`` laid out for the device: same parameters, same results.

    Raises ``ValueError`` for a kernel that no rule lays out.
    """
    with target.tvm():
        return laid_out(func, target, RULES, fits)


__all__ = ["RULE", "RULES", "schedule"]
