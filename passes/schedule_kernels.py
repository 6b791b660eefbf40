"""Give every kernel its schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import tirx

from burnish.targets.divisors import without_negative_divisors

Schedule = Callable[[tirx.PrimFunc], tirx.PrimFunc]


@tvm.transform.module_pass(opt_level=0, name="ScheduleKernels")
@dataclass(frozen=True)
class ScheduleKernels:
    """Replace each PrimFunc by what ``schedule`` makes of it; its attributes are kept.

    Kernels of equal structure are one kernel here: fusion made them one function.
    """

    schedule: Schedule

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        functions = {}
        for var, func in mod.functions.items():
            if isinstance(func, tirx.PrimFunc):
                func = self.schedule(func)
                func = func.with_body(without_negative_divisors(func.body))
            functions[var] = func
        return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)
