"""Reading a Relax function: its bindings, who reads what, and what is known of a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import tvm
from tvm import relax


def bindings(func: relax.Function) -> Iterator[relax.Binding]:
    """Every binding of a function in program order, those inside branches of ``If`` too."""
    pending = [func.body]
    while pending:
        body = pending.pop()
        if not isinstance(body, relax.SeqExpr):
            continue
        for block in body.blocks:
            for binding in block.bindings:
                yield binding
                if isinstance(binding.value, relax.If):
                    pending += [binding.value.false_branch, binding.value.true_branch]


def references(func: relax.Function) -> Counter[relax.Var]:
    """How often each variable is read, counting an argument given twice as two."""
    counts: Counter[relax.Var] = Counter(_read(func.body))
    for binding in bindings(func):
        counts.update(_read(binding.value))
    return counts


def _read(expr: relax.Expr) -> list[relax.Var]:
    """Variables an expression reads itself; what its nested bindings read is not repeated."""
    if isinstance(expr, relax.Var):
        return [expr]
    if isinstance(expr, relax.Call):
        return [var for argument in expr.args for var in _read(argument)]
    if isinstance(expr, relax.Tuple):
        return [var for field in expr.fields for var in _read(field)]
    if isinstance(expr, relax.TupleGetItem):
        return _read(expr.tuple_value)
    if isinstance(expr, relax.If):
        parts = (expr.cond, expr.true_branch, expr.false_branch)
        return [var for part in parts for var in _read(part)]
    if isinstance(expr, relax.SeqExpr):
        return _read(expr.body)
    if isinstance(expr, relax.Function):
        return list(relax.analysis.free_vars(expr))
    return []


def op_name(expr: relax.Expr | None) -> str:
    """Name of the operator that an expression calls (``relax.add``); empty for all else."""
    return expr.op.name if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op) else ""


def static_shape(expr: relax.Expr) -> tuple[int, ...] | None:
    """Shape of a tensor, or ``None`` where it is not all numbers."""
    shape = getattr(expr.ty, "shape", None)
    if shape is None or not all(isinstance(n, tvm.tirx.IntImm) for n in shape):
        return None
    return tuple(int(n) for n in shape)


def constant_array(expr: relax.Expr) -> np.ndarray | None:
    """Value of a constant in the graph; ``None`` for all else."""
    if isinstance(expr, tvm.ir.Constant) and isinstance(expr.value, tvm.runtime.Tensor):
        return expr.value.numpy()
    return None


def without_turn(
    operand: relax.Expr, made: Callable[[relax.Var], relax.Expr | None]
) -> tuple[relax.Expr, bool]:
    """What a transpose of the last two axes was made of, and whether ``operand`` is one.

    ``made`` gives the value that a variable is bound to.
    """
    value = made(operand) if isinstance(operand, relax.Var) else None
    if value is None or op_name(value) != "relax.permute_dims":
        return operand, False
    rank = int(operand.ty.ndim)
    axes = value.attrs.axes
    given = list(range(rank))[::-1] if axes is None else [int(axis) % rank for axis in axes]
    swapped = [*range(rank - 2), rank - 1, rank - 2]
    return (value.args[0], True) if given == swapped else (operand, False)
