"""Sizes computed inside an ONNX graph, evaluated at import with symbols for the open ones.

Exporters write ``Shape -> Gather -> Concat -> Reshape``. With some sizes open these are no
constants, and TVM takes target shapes only as shapes. So integers that come from ``Shape`` are
carried here as arrays of ints and TVM expressions, and handed over as shapes where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax, tirx
from tvm.sym import Analyzer

Sizes = np.ndarray  # of int and tirx expressions, dtype object

_ANALYZER = Analyzer()
# Operators whose TVM converters take a target shape, and the input it is.
TAKES_SHAPE = {"ConstantOfShape": 0, "Expand": 1}


def shape_sizes(expr: relax.Expr) -> Sizes | None:
    """The sizes of a tensor whose shape is known, symbols included."""
    shape = getattr(expr.ty, "shape", None)
    if not isinstance(expr.ty, relax.TensorType) or not isinstance(shape, relax.ShapeExpr):
        return None
    return _array([_plain(n) for n in shape])


def of(values: Sequence[Any]) -> Sizes:
    """A list of ints and expressions as sizes."""
    return _array([_plain(n) for n in values])


def listed(expr: relax.Expr) -> Sizes | None:
    """The sizes of a written-out shape."""
    if not isinstance(expr, relax.ShapeExpr):
        return None
    return _array([_plain(n) for n in expr.values])


def evaluate(op: str, inputs: Sequence[Sizes | None], attrs: dict[str, Any]) -> Sizes | None:
    """The result of a node over sizes, or None where it is none that sizes go through."""
    rule = _RULES.get(op)
    if rule is None or not inputs or inputs[0] is None:
        return None
    if any(value is None for value in inputs[1:]) and op != "Slice":
        return None
    return rule(inputs, attrs)


def reshape_target(sizes: Sizes, shape: Sequence[Any], allow_zero: bool) -> list[Any]:
    """The target of Reshape written out: 0 copies an input size, -1 is what is left over."""
    target = [shape[i] if _is(n, 0) and not allow_zero else n for i, n in enumerate(sizes.tolist())]
    unknown = [i for i, n in enumerate(target) if _is(n, -1)]
    if unknown:
        known = [n for i, n in enumerate(target) if i != unknown[0]]
        target[unknown[0]] = _plain(
            _ANALYZER.simplify(tirx.floordiv(product(shape), product(known)))
        )
    return target


def to_expr(sizes: Sizes) -> relax.Expr | None:
    """Sizes as a target shape: a constant where all are numbers, else a shape if a list."""
    if _ints(sizes) is not None:
        return relax.const(sizes.astype(np.int64), "int64")
    return relax.ShapeExpr(sizes.tolist()) if sizes.ndim == 1 else None


def to_tensor(sizes: Sizes, dtype: str) -> relax.Expr:
    """Sizes as a tensor, for what else reads them."""
    if _ints(sizes) is not None:
        return relax.const(sizes.astype(dtype), dtype)
    flat = relax.op.shape_to_tensor(relax.ShapeExpr(sizes.ravel().tolist()))
    if dtype != "int64":
        flat = relax.op.astype(flat, dtype)
    return flat if sizes.ndim == 1 else relax.op.reshape(flat, list(sizes.shape))


def constant_sizes(array: np.ndarray) -> Sizes | None:
    """A constant as sizes, where it is a short list of integers."""
    if array.dtype.kind not in "biu" or array.size > 64:
        return None
    result = np.empty(array.shape, object)
    for index, value in np.ndenumerate(array):
        result[index] = int(value)
    return result


def _gather(inputs: Sequence[Any], attrs: dict[str, Any]) -> Sizes | None:
    index = _ints(inputs[1])
    return None if index is None else _array(np.take(inputs[0], index, attrs.get("axis", 0)))


def _slice(inputs: Sequence[Any], attrs: dict[str, Any]) -> Sizes | None:
    data = inputs[0]
    given = [None if value is None else _ints(value) for value in inputs[1:]]
    if data.ndim != 1 or len(given) < 2 or given[0] is None or given[1] is None:
        return None
    step = int(given[3][0]) if len(given) > 3 and given[3] is not None else 1
    return data[int(given[0][0]) : int(given[1][0]) : step]


def _unsqueeze(inputs: Sequence[Any], attrs: dict[str, Any]) -> Sizes | None:
    axes = attrs.get("axes", ()) if len(inputs) < 2 else _ints(inputs[1])
    return None if axes is None else np.expand_dims(inputs[0], tuple(int(a) for a in axes))


def _squeeze(inputs: Sequence[Any], attrs: dict[str, Any]) -> Sizes | None:
    return inputs[0].reshape(()) if inputs[0].size == 1 else None


def _reshape(inputs: Sequence[Any], attrs: dict[str, Any]) -> Sizes | None:
    target = _ints(inputs[1])
    return None if target is None else inputs[0].reshape([int(n) for n in target])


def _concat(inputs: Sequence[Any], attrs: dict[str, Any]) -> Sizes:
    return np.concatenate(inputs, axis=attrs.get("axis", 0))


def _arithmetic(apply: Callable[[Any, Any], Any]) -> Callable[..., Sizes]:
    def rule(inputs: Sequence[Any], attrs: dict[str, Any]) -> Sizes:
        left, right = np.broadcast_arrays(*inputs)
        result = np.empty(left.shape, object)
        for index in np.ndindex(left.shape):
            result[index] = simple(apply(left[index], right[index]))
        return result

    return rule


def _divide(a: Any, b: Any) -> Any:
    """Sizes are not negative, so rounding down is ONNX's rounding towards zero."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    return tirx.floordiv(a, b)


def _most(a: Any, b: Any) -> Any:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.max(a, b)


def _least(a: Any, b: Any) -> Any:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.min(a, b)


def _equal(inputs: Sequence[Any], attrs: dict[str, Any]) -> Sizes | None:
    """1 or 0 where it is certain; a size with symbols is no negative number."""
    left, right = np.broadcast_arrays(*inputs)
    result = np.empty(left.shape, object)
    for index in np.ndindex(left.shape):
        a, b = left[index], right[index]
        plain = [n for n in (a, b) if isinstance(n, int)]
        if len(plain) == 2 or (len(plain) == 1 and plain[0] < 0):
            result[index] = int(len(plain) == 2 and a == b)
        elif _ANALYZER.can_prove_equal(a, b):
            result[index] = 1
        else:
            return None
    return result


def _where(inputs: Sequence[Any], attrs: dict[str, Any]) -> Sizes | None:
    if _ints(inputs[0]) is None:
        return None
    condition, left, right = np.broadcast_arrays(*inputs)
    result = np.empty(left.shape, object)
    for index in np.ndindex(left.shape):
        result[index] = left[index] if condition[index] else right[index]
    return result


_RULES: dict[str, Callable[[Sequence[Any], dict[str, Any]], Sizes | None]] = {
    "Add": _arithmetic(lambda a, b: a + b),
    "Cast": lambda inputs, attrs: inputs[0] if attrs.get("to") in (6, 7) else None,
    "Concat": _concat,
    "Div": _arithmetic(_divide),
    "Equal": _equal,
    "Gather": _gather,
    "Identity": lambda inputs, attrs: inputs[0],
    "Max": _arithmetic(_most),
    "Min": _arithmetic(_least),
    "Mul": _arithmetic(lambda a, b: a * b),
    "ReduceProd": lambda inputs, attrs: _array(product(inputs[0].ravel())).reshape(
        (1,) * inputs[0].ndim if attrs.get("keepdims", 1) else ()
    ),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _arithmetic(lambda a, b: a - b),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}


def product(sizes: Sequence[Any]) -> Any:
    total: Any = 1
    for size in sizes:
        total = total * size
    return simple(total)


def simple(value: Any) -> Any:
    return value if isinstance(value, int) else _plain(_ANALYZER.simplify(value))


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, (int, tirx.IntImm)) else value


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int) and value == number


def _ints(sizes: Sizes) -> np.ndarray | None:
    known = all(isinstance(n, int) for n in sizes.ravel())
    return sizes.astype(np.int64) if known else None


def _array(values: Any) -> Sizes:
    """Sizes, one size or a list of them, as an array of objects."""
    if isinstance(values, np.ndarray):
        return values
    result: Sizes = np.empty(len(values) if isinstance(values, list) else (), object)
    result[...] = values
    return result
