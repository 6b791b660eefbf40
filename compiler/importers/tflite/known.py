"""Integers that are known at import: sizes, loop counters, and what is computed from them.

A value is an array of ints and TVM size expressions (dtype object), so that an open batch goes
through ``SHAPE -> STRIDED_SLICE -> PACK -> RESHAPE`` as a symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax, tirx
from tvm.sym import Analyzer

from burnish.compiler.importers.tflite.schema import options

Known = np.ndarray
MOST = 64
_ANALYZER = Analyzer()


def constant(array: np.ndarray) -> Known | None:
    """A short array of integers or booleans as a known value."""
    if array.dtype.kind not in "iub" or array.size > MOST:
        return None
    result = np.empty(array.shape, object)
    for index, value in np.ndenumerate(array):
        result[index] = bool(value) if array.dtype.kind == "b" else int(value)
    return result


def shape_of(expr: relax.Expr) -> Known | None:
    """The sizes of a tensor whose shape is known."""
    shape = getattr(expr.ty, "shape", None)
    if not isinstance(shape, relax.ShapeExpr):
        return None
    result = np.empty(len(shape), object)
    for index, size in enumerate(shape):
        result[index] = int(size) if isinstance(size, tirx.IntImm) else size
    return result


def numbers(value: Known | None, dtype: str = "int64") -> np.ndarray | None:
    """The value where it holds no symbol, else None."""
    if value is None or not all(isinstance(n, (int, bool)) for n in value.ravel()):
        return None
    return value.astype(dtype)


def to_expr(value: Known, dtype: str) -> relax.Expr:
    """The value as a tensor."""
    array = numbers(value, dtype)
    if array is not None:
        return relax.const(array, dtype)
    flat = relax.op.shape_to_tensor(relax.ShapeExpr(value.ravel().tolist()))
    if dtype != "int64":
        flat = relax.op.astype(flat, dtype)
    return flat if value.ndim == 1 else relax.op.reshape(flat, list(value.shape))


def evaluate(name: str, operator: Any, inputs: Sequence[Known | None]) -> Known | None:
    """The result of an operator over known values; None where there is none."""
    rule = _RULES.get(name)
    if rule is None or not inputs or any(value is None for value in inputs):
        return None
    if name in _FUSED and options(operator, _FUSED[name]).FusedActivationFunction():
        return None
    result = rule(operator, *inputs)
    if result is None:
        return None
    whole = np.empty(np.shape(result), object)
    whole[...] = result
    return whole


def _each(function: Callable[..., Any], *, symbols: bool = False) -> Callable[..., Any]:
    def rule(_operator: Any, *inputs: Known) -> Any:
        if not symbols and any(numbers(value) is None for value in inputs):
            return None
        return np.frompyfunc(function, len(inputs), 1)(*inputs)

    return rule


def _strided_slice(operator: Any, data: Known, begin: Known, end: Known, stride: Known) -> Any:
    limits = [numbers(value) for value in (begin, end, stride)]
    if data.ndim != 1 or any(value is None or value.size != 1 for value in limits):
        return None
    low, high, step = (int(value[0]) for value in limits if value is not None)
    found = options(operator, "StridedSliceOptions")
    if found.ShrinkAxisMask():
        return data[low]
    return data[None if found.BeginMask() else low : None if found.EndMask() else high : step]


def _pack(operator: Any, *parts: Known) -> Any:
    return np.stack(parts, options(operator, "PackOptions").Axis())


def _concatenation(operator: Any, *parts: Known) -> Any:
    return np.concatenate(parts, options(operator, "ConcatenationOptions").Axis())


def _reshape(operator: Any, data: Known, shape: Known | None = None) -> Any:
    target = None if shape is None else numbers(shape)
    return None if target is None else data.reshape([int(n) for n in target])


def _gather(operator: Any, data: Known, index: Known) -> Any:
    at, found = numbers(index), options(operator, "GatherOptions")
    if at is None or found.BatchDims():
        return None
    return np.take(data, at, axis=found.Axis())


def _product(operator: Any, data: Known, axes: Known) -> Any:
    if data.ndim != 1 or options(operator, "ReducerOptions").KeepDims():
        return None
    total: Any = 1
    for size in data.tolist():
        total = total * size
    return _ANALYZER.simplify(total) if isinstance(total, tirx.Expr) else total


_FUSED = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions"}
_RULES: dict[str, Callable[..., Any]] = {
    "ADD": _each(lambda a, b: a + b, symbols=True),
    "SUB": _each(lambda a, b: a - b, symbols=True),
    "MUL": _each(lambda a, b: a * b, symbols=True),
    "MINIMUM": _each(min),
    "MAXIMUM": _each(max),
    "LESS": _each(lambda a, b: a < b),
    "LESS_EQUAL": _each(lambda a, b: a <= b),
    "GREATER": _each(lambda a, b: a > b),
    "GREATER_EQUAL": _each(lambda a, b: a >= b),
    "EQUAL": _each(lambda a, b: a == b),
    "LOGICAL_AND": _each(lambda a, b: bool(a and b)),
    "LOGICAL_OR": _each(lambda a, b: bool(a or b)),
    "LOGICAL_NOT": _each(lambda a: not a),
    "CAST": lambda operator, data: data,
    "CONCATENATION": _concatenation,
    "EXPAND_DIMS": lambda operator, data, axis: (
        None if numbers(axis) is None else np.expand_dims(data, int(axis.ravel()[0]))
    ),
    "GATHER": _gather,
    "PACK": _pack,
    "REDUCE_PROD": _product,
    "RESHAPE": _reshape,
    "SQUEEZE": lambda operator, data: data.reshape(()) if data.size == 1 else None,
    "STRIDED_SLICE": _strided_slice,
}
