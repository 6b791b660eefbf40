"""The distinct kernels of a lowered module, and how often each is called."""

from __future__ import annotations

from dataclasses import dataclass, replace

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.relax.analysis import post_order_visit

Spec = tuple[tuple[int, ...], str]
"""Shape and dtype of one tensor argument."""


@dataclass(frozen=True)
class Task:
    """One kernel: its function without a name, and where the module uses it.

    ``outputs`` of the ``arguments``, the last ones, are written. ``reason`` says why it cannot
    be tuned; empty where it can.
    """

    key: int
    name: str
    func: tirx.PrimFunc
    count: int
    arguments: tuple[Spec, ...] = ()
    outputs: int = 1
    reason: str = ""


def anonymous(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """The function without its name: kernels that differ by name only are one."""
    if func.attrs is not None and "global_symbol" in func.attrs:
        return func.without_attr("global_symbol")
    return func


def copied(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """The function, sharing nothing with the original.

    ``Schedule(IRModule({"main": func}))`` of apache-tvm 0.27 rewrites ``func`` itself where it
    holds the only module around it: what is scheduled must be a copy.
    """
    return tvm.ir.load_json(tvm.ir.save_json(func))


def task_key(func: tirx.PrimFunc) -> int:
    """The structural hash of a kernel, the same under any name and in any process."""
    return int(tvm_ffi.structural_hash(anonymous(func)))


def schedule_key(func: tirx.PrimFunc) -> int:
    """The hash by which the database knows a schedule that was chosen."""
    if func.attrs is not None and "tirx.is_scheduled" in func.attrs:
        func = func.without_attr("tirx.is_scheduled")
    return task_key(func)


def extract_tasks(mod: tvm.ir.IRModule) -> list[Task]:
    """The kernels that the Relax functions call by ``R.call_tir``, equal ones merged.

    In order of first call. Kernels called in another way (in place, packed) are not tasks:
    ``R.call_tir`` alone promises that outputs are written from nothing but inputs.
    """
    tasks: dict[int, Task] = {}
    for call, var in _calls(mod):
        func = mod[var]
        key = task_key(func)
        if key in tasks:
            tasks[key] = _counted(tasks[key])
            continue
        out = call.ty_args[0]
        outputs = len(out.fields) if isinstance(out, relax.TupleType) else 1
        arguments, reason = _arguments(func)
        if len(call.args) > 2:
            reason = "takes symbolic shapes"
        tasks[key] = Task(
            key, var.name_hint, anonymous(func), 1, arguments, outputs, reason or _scheduled(func)
        )
    return list(tasks.values())


def _calls(mod: tvm.ir.IRModule) -> list[tuple[relax.Call, tvm.ir.GlobalVar]]:
    call_tir = tvm.ir.Op.get("relax.call_tir")
    found: list[tuple[relax.Call, tvm.ir.GlobalVar]] = []

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call) and expr.op == call_tir:
            found.append((expr, expr.args[0]))

    for _, func in sorted(mod.functions.items(), key=lambda item: item[0].name_hint):
        if isinstance(func, relax.Function):
            post_order_visit(func.body, visit)
    return found


def _counted(task: Task) -> Task:
    return replace(task, count=task.count + 1)


def _scheduled(func: tirx.PrimFunc) -> str:
    attrs = func.attrs or {}
    return "already scheduled" if attrs.get("tirx.is_scheduled", False) else ""


def _arguments(func: tirx.PrimFunc) -> tuple[tuple[Spec, ...], str]:
    """The tensors a kernel takes, or why random ones cannot be made."""
    specs = []
    for param in func.params:
        if not isinstance(param.ty, tirx.BufferType):
            return (), f"takes the scalar {param.name}"
        if not all(isinstance(extent, tirx.IntImm) for extent in param.ty.shape):
            return (), "takes symbolic shapes"
        specs.append((tuple(int(extent) for extent in param.ty.shape), str(param.ty.dtype)))
    return tuple(specs), ""
