"""Nodes whose inputs are all known at import: their results, by NumPy.

These are the computations that exporters leave around shapes, masks and scales. Weights are not
known in this sense (they are parameters), and neither is any input. What has no rule here, and
what would give more than ``LARGEST`` elements, is computed by the compiled model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from burnish.compiler.importers.onnx.values import CARRIED, numpy_dtype

LARGEST = 1 << 20
Arrays = list[Any]
Rule = Callable[[Arrays, dict[str, Any]], Any]


def folded(op: str, inputs: Arrays, attrs: dict[str, Any]) -> tuple[np.ndarray, ...] | None:
    """The results of a node of ai.onnx on arrays (None for inputs left out), where there is a rule.

    Types are as ONNX has them; a rule gives None for a form it does not cover.
    """
    rule = _RULES.get(op)
    if rule is None or not inputs or inputs[0] is None:
        return None
    if any(array is not None and array.size > LARGEST for array in inputs):
        return None
    with np.errstate(all="ignore"):
        result = rule(inputs, attrs)
    if result is None:
        return None
    results = result if isinstance(result, tuple) else (result,)
    return None if any(item.size > LARGEST for item in results) else results


def _same_type(apply: Callable[..., Any]) -> Rule:
    """Elementwise, in the type of the inputs."""

    def rule(inputs: Arrays, attrs: dict[str, Any]) -> Any:
        if any(x is None for x in inputs):
            return None
        return np.asarray(apply(*inputs)).astype(inputs[0].dtype)

    return rule


def _test(apply: Callable[..., Any]) -> Rule:
    return lambda inputs, attrs: np.asarray(apply(*inputs), bool)


def _of_many(apply: Callable[..., Any]) -> Rule:
    def rule(inputs: Arrays, attrs: dict[str, Any]) -> Any:
        total = inputs[0]
        for item in inputs[1:]:
            total = apply(total, item)
        return np.asarray(total).astype(inputs[0].dtype)

    return rule


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Integers are divided towards zero."""
    if a.dtype.kind in "iu":
        if not np.all(b):
            raise ZeroDivisionError("division by zero among constants")
        quotient = np.abs(a) // np.abs(b)
        return np.where((a < 0) != (b < 0), -quotient, quotient)
    return a / b


def _mod(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    a, b = inputs
    if a.dtype.kind in "iu" and not np.all(b):
        return None
    return np.asarray(np.fmod(a, b) if attrs.get("fmod") else np.mod(a, b)).astype(a.dtype)


def _power(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    base, exponent = inputs
    if base.dtype.kind in "iu" and np.any(exponent < 0):
        return None
    return np.power(base.astype(np.float64), exponent.astype(np.float64)).astype(base.dtype)


def _cast(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    x, to = inputs[0], attrs["to"]
    if to in CARRIED or to == TensorProto.STRING or x.dtype.kind not in "biuf":
        return None
    dtype = np.dtype(numpy_dtype(to)) if to != TensorProto.BFLOAT16 else None
    if dtype is None or dtype.kind not in "biuf":
        return None
    if x.dtype.kind == "f" and dtype.kind in "iu" and not np.isfinite(x).all():
        return None
    return x.astype(dtype)


def _slice(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    given: list[Any] = [x.tolist() if x is not None else None for x in inputs[1:]]
    if not given:
        given = [attrs["starts"], attrs["ends"], attrs.get("axes")]
    starts, ends, axes, steps = [*given, None, None][:4]
    index = [slice(None)] * inputs[0].ndim
    for at, axis in enumerate(axes if axes is not None else range(len(starts))):
        step = steps[at] if steps is not None else 1
        size = inputs[0].shape[axis]
        # Python reads an end of -1 as the last element; ONNX's way past the start is -size - 1.
        end = None if step < 0 and ends[at] < -size else ends[at]
        index[axis] = slice(starts[at], end, step)
    return inputs[0][tuple(index)]


def _axes(inputs: Arrays, attrs: dict[str, Any]) -> tuple[int, ...] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(int(a) for a in inputs[1].ravel())
    return tuple(attrs["axes"]) if "axes" in attrs else None


def _squeeze(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    return np.squeeze(inputs[0], _axes(inputs, attrs))


def _unsqueeze(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    axes = _axes(inputs, attrs)
    return None if axes is None else np.expand_dims(inputs[0], axes)


def _reshape(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    if len(inputs) < 2:
        return None
    target = inputs[1].tolist()
    if not attrs.get("allowzero"):
        target = [inputs[0].shape[i] if n == 0 else n for i, n in enumerate(target)]
    return inputs[0].reshape(target)


def _gather(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    return np.take(inputs[0], inputs[1], axis=attrs.get("axis", 0))


def _range(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    start, limit, delta = (x.reshape(()) for x in inputs)
    count = max(int(np.ceil((limit - start) / delta)), 0)
    return (start + np.arange(count) * delta).astype(inputs[0].dtype) if count <= LARGEST else None


def _constant_of_shape(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    value = np.asarray(attrs.get("value", np.zeros(1, np.float32)))
    if value.dtype.kind not in "biuf" or np.prod(inputs[0], dtype=np.float64) > LARGEST:
        return None
    return np.full(inputs[0].tolist(), value.reshape(-1)[0], value.dtype)


def _expand(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    shape = np.broadcast_shapes(inputs[0].shape, tuple(inputs[1].tolist()))
    return (
        np.broadcast_to(inputs[0], shape) if np.prod(shape, dtype=np.float64) <= LARGEST else None
    )


def _reduce(apply: Callable[..., Any]) -> Rule:
    def rule(inputs: Arrays, attrs: dict[str, Any]) -> Any:
        x, axes = inputs[0], _axes(inputs, attrs)
        if not axes and attrs.get("noop_with_empty_axes"):
            return None
        keep = bool(attrs.get("keepdims", 1))
        return np.asarray(apply(x, axis=axes or None, keepdims=keep)).astype(x.dtype)

    return rule


def _split(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    if len(inputs) < 2 or inputs[1] is None:
        return None
    return tuple(np.split(inputs[0], np.cumsum(inputs[1])[:-1], attrs.get("axis", 0)))


def _concat(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    return np.concatenate(inputs, attrs["axis"])


def _transpose(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    return np.transpose(inputs[0], attrs.get("perm"))


def _size(inputs: Arrays, attrs: dict[str, Any]) -> Any:
    return np.array(inputs[0].size, np.int64)


_RULES: dict[str, Rule] = {
    "Abs": _same_type(np.abs),
    "Add": _same_type(np.add),
    "And": _test(np.logical_and),
    "Cast": _cast,
    "Ceil": _same_type(np.ceil),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _same_type(np.cos),
    "Div": _same_type(_divide),
    "Equal": _test(np.equal),
    "Exp": _same_type(np.exp),
    "Expand": _expand,
    "Floor": _same_type(np.floor),
    "Gather": _gather,
    "Greater": _test(np.greater),
    "GreaterOrEqual": _test(np.greater_equal),
    "Identity": lambda inputs, attrs: inputs[0],
    "Less": _test(np.less),
    "LessOrEqual": _test(np.less_equal),
    "Log": _same_type(np.log),
    "Max": _of_many(np.maximum),
    "Min": _of_many(np.minimum),
    "Mod": _mod,
    "Mul": _same_type(np.multiply),
    "Neg": _same_type(np.negative),
    "Not": _test(np.logical_not),
    "Or": _test(np.logical_or),
    "Pow": _power,
    "Range": _range,
    "Reciprocal": _same_type(np.reciprocal),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Sin": _same_type(np.sin),
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _same_type(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _same_type(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": lambda inputs, attrs: np.where(inputs[0], inputs[1], inputs[2]),
    "Xor": _test(np.logical_xor),
}
