"""What a device can compute, asked operator by operator; the answer to no is a reason in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import tvm
from tvm import relax

from burnish.passes.graph import op_name
from burnish.targets.hetero import HOST, Place
from burnish.targets.opencl.target import OpenclTarget


class Support(Protocol):
    """A device, or a code generator of the user's own, as whoever places operators sees it."""

    def why_not(self, call: relax.Expr) -> str:
        """Why this device cannot compute ``call``; empty where it can."""


ON_HOST = {
    "relax.unique": "counts what it finds, on the host",
    "relax.nonzero": "counts what it finds, on the host",
    "relax.tensor_to_shape": "reads a size from a value, on the host",
    "relax.shape_to_tensor": "makes a tensor of sizes, on the host",
    "relax.call_packed": "is a function of the host",
    "relax.call_pure_packed": "is a function of the host",
    "relax.call_dps_packed": "is a function of the host",
    "relax.invoke_pure_closure": "is a function of the host",
}
"""Operators that are no kernels."""
_FEW = ("float64", "bfloat16")
"""Types that an OpenCL device need not have, and the target does not tell of."""


@dataclass(frozen=True)
class DeviceSupport:
    """Support of a device that our own kernels run on.

    1. A type must be there: float16 on OpenCL where the target has it, float64 and bfloat16 not,
       since OpenCL promises neither.
    2. What is a function of the host runs on the host's memory alone.
    3. Branches, and functions of the model's own, run in the host's memory.
    """

    place: Place

    def why_not(self, call: relax.Expr) -> str:
        if self.place.memory != HOST and _branches(call):
            return "branches and functions of the model run in the host's memory alone"
        for one in _within(call):
            why = self._type(one) or self._host(one)
            if why:
                return why
        return ""

    def _host(self, call: relax.Expr) -> str:
        name = op_name(call)
        if self.place.target.kind == "cpu":
            return ""
        if name in ON_HOST:
            return f"{name} {ON_HOST[name]}"
        if isinstance(call, relax.Call) and isinstance(call.op, relax.ExternFunc):
            return f"{call.op.global_symbol} is a function of the host"
        return ""

    def _type(self, call: relax.Expr) -> str:
        target = self.place.target
        if not isinstance(target, OpenclTarget):
            return ""
        for dtype in dict.fromkeys(dtypes(call)):
            if dtype == "float16" and not target.half:
                return f"float16 needs cl_khr_fp16, which {target.name!r} need not have"
            if dtype in _FEW or dtype.startswith("float8"):
                return f"{dtype} is not of every OpenCL device"
        return ""


def dtypes(call: relax.Expr) -> Iterator[str]:
    """The dtypes of a call's tensors: operands and results."""
    pending = [call, *(call.args if isinstance(call, relax.Call) else ())]
    while pending:
        one = pending.pop()
        if isinstance(one, relax.Tuple):
            pending.extend(one.fields)
        types = [one.ty]
        while types:
            ty = types.pop()
            if isinstance(ty, relax.TensorType) and ty.dtype is not None:
                yield str(ty.dtype)
            elif isinstance(ty, relax.TupleType):
                types.extend(ty.fields)


def _branches(expr: relax.Expr) -> bool:
    function = isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.GlobalVar)
    return function or isinstance(expr, relax.If)


def _within(expr: relax.Expr) -> Iterator[relax.Expr]:
    """The calls in an expression, those of branches too."""
    if not isinstance(expr, relax.If):
        yield expr
        return
    for branch in (expr.true_branch, expr.false_branch):
        for block in branch.blocks:
            for binding in block.bindings:
                yield from _within(binding.value)
