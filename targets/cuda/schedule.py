"""The default schedule of a CUDA kernel: the first rule that applies.

1. ``tensor-core``  products of two-byte floats, by our own rule
2. ``matmul``, ``gemv``, ``reduction``, ``general-reduction``  dlight's, of TVM
3. ``fallback``     dlight's: every element a thread, whatever the kernel does

A rule that does not apply, or breaks on an odd shape, gives way to the next one; the name of the
rule that laid a kernel out is in its attribute.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import s_tir, tirx
from tvm.s_tir import dlight

from burnish.targets.cuda import tensor_core
from burnish.targets.cuda.target import CudaTarget

RULE = "burnish.rule"
"""Function attribute: the rule that laid a kernel out."""
Rule = Callable[[tirx.PrimFunc, CudaTarget], tirx.PrimFunc | None]
_BREAKS = (
    RuntimeError,
    ValueError,
    AssertionError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
)
"""What rules raise on kernels that they take for another form than they have."""


def _dlight(rule: dlight.base.ScheduleRule) -> Rule:
    def apply(func: tirx.PrimFunc, target: CudaTarget) -> tirx.PrimFunc | None:
        found = rule.apply(func, target.tvm(), False)
        if isinstance(found, list):
            found = found[0] if found else None
        return found.mod["main"] if isinstance(found, s_tir.Schedule) else None

    return apply


RULES: dict[str, Rule] = {
    "tensor-core": tensor_core.emit,
    "matmul": _dlight(dlight.gpu.Matmul()),
    "gemv": _dlight(dlight.gpu.GEMV()),
    "reduction": _dlight(dlight.gpu.Reduction()),
    "general-reduction": _dlight(dlight.gpu.GeneralReduction()),
    "fallback": _dlight(dlight.gpu.Fallback()),
}


def schedule(func: tirx.PrimFunc, target: CudaTarget) -> tirx.PrimFunc:
    """``func`` laid out for the GPU: same parameters, same results.

    Raises ``ValueError`` for a kernel that no rule lays out.
    """
    attrs = dict(func.attrs.items()) if func.attrs is not None else {}
    if "tirx.is_scheduled" in attrs or "tirx.is_host_func" in attrs:
        return func
    with target.tvm():
        for name, rule in RULES.items():
            try:
                found = rule(func, target)
            except _BREAKS:
                continue
            if found is not None:
                return found.with_attr({**attrs, "tirx.is_scheduled": True, RULE: name})
    raise ValueError(f"no schedule rule lays out the kernel {attrs.get('global_symbol', '?')}")
