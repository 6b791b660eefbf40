"""A module in numbers: its operators by count, and its parameters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import tvm
from tvm import relax


@dataclass(frozen=True)
class ParamRow:
    """One parameter as stored; ``bytes`` counts whole bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


def op_counts(mod: tvm.IRModule) -> dict[str, int]:
    """Calls of all Relax functions by operator, most first.

    A call of a kernel counts under the kernel's name, a call of another function under its own.
    """
    counts: Counter[str] = Counter()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call):
            counts[_callee(expr)] += 1

    for function in mod.functions.values():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def param_rows(params: Mapping[str, tvm.runtime.Tensor]) -> list[ParamRow]:
    """Name -> value as stored -> one row each, in order."""
    rows = []
    for name, value in params.items():
        shape, dtype = tuple(map(int, value.shape)), str(value.dtype)
        bits = tvm.DataType(dtype).bits
        rows.append(ParamRow(name, shape, dtype, math.ceil(math.prod(shape) * bits / 8)))
    return rows


def _callee(call: relax.Call) -> str:
    if isinstance(call.op, relax.ExternFunc):
        return str(call.op.global_symbol)
    if isinstance(call.op, tvm.ir.GlobalVar):
        return str(call.op.name_hint)
    if isinstance(call.op, tvm.ir.Op):
        name = str(call.op.name)
        kernel = call.args[0] if name.startswith("relax.call_") and call.args else None
        if isinstance(kernel, tvm.ir.GlobalVar):
            return str(kernel.name_hint)
        if isinstance(kernel, relax.ExternFunc):
            return str(kernel.global_symbol)
        return name.removeprefix("relax.")
    return "closure"
