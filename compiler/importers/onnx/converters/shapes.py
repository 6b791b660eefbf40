"""Operators that set a shape: from constants, from sizes with symbols, or when the model runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, tirx

from burnish.compiler.importers.onnx import sizes
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.onnx.runtime_shapes import (
    size_variable,
    size_variables,
    target_sizes,
)

op = relax.op


@converts("Reshape", since=5)
def reshape(node: Node) -> Result:
    """0 copies a size of the input (save with allowzero), -1 is what is left over.

    A target computed when the model runs may hold -1 and 0 as well: it is resolved by arithmetic
    on the list before it becomes a shape.
    """
    x, zero = node.inputs[0], bool(node.attrs.get("allowzero", 0))
    target, shape = node.sizes(1), node.shape(0)
    if shape is None:
        return None
    if target is not None:
        made = sizes.reshape_target(target.ravel(), shape, zero)
        if any(isinstance(n, int) and n == 0 for n in made):
            return op.zeros(made, node.dtype())  # Relax would read the 0 as "copy the size"
        # As a shape: in a list, Relax reads 0 and -1 in its own way.
        return op.reshape(x, relax.ShapeExpr(made))
    target = _resolved(node, shape, zero=zero)
    return op.reshape(x, size_variables(node, target, product=sizes.product(shape)))


def _resolved(node: Node, shape: list[Any], *, zero: bool) -> relax.Expr:
    """A target list without 0 and -1."""
    target = node.inputs[1]
    count = target.ty.shape[0]
    if not isinstance(count, tirx.IntImm):
        raise Refused("a target of open rank")
    if not zero:
        padded = [shape[i] if i < len(shape) else 0 for i in range(int(count))]
        copied = node.emit(sizes.to_tensor(sizes.of(padded), "int64"))
        is_zero = node.emit(op.equal(target, relax.const(0, "int64")))
        target = node.emit(op.where(is_zero, copied, target))
    total = node.emit(sizes.to_tensor(sizes.of([sizes.product(shape)]), "int64"))
    # The product of a list with one -1 is the negative product of the others.
    others = node.emit(op.abs(node.emit(op.prod(target, axis=0, keepdims=True))))
    others = node.emit(op.maximum(others, relax.const(1, "int64")))
    left = node.emit(op.floor_divide(total, others))
    is_open = node.emit(op.equal(target, relax.const(-1, "int64")))
    return node.emit(op.where(is_open, left, target))


@converts("Expand", since=8)
def expand(node: Node) -> Result:
    """Broadcast both ways: a size of 1 on either side takes the other's.

    A size known only when the model runs replaces an input size of 1; for any other input size it
    must be that size or 1, and the result has the input's.
    """
    x, shape = node.inputs[0], node.shape(0)
    if shape is None:
        return None
    target = target_sizes(node, 1)
    rank = max(len(shape), len(target))
    shape = [1] * (rank - len(shape)) + shape
    target = [1] * (rank - len(target)) + target
    result = [b if _one(a) else a for a, b in zip(shape, target, strict=True)]
    if len(x.ty.shape) < rank:
        x = node.emit(op.reshape(x, shape))
    return op.broadcast_to(x, result)


def _one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


@converts("ConstantOfShape", since=9)
def constant_of_shape(node: Node) -> Result:
    """A tensor of one value."""
    value = np.asarray(node.attrs.get("value", np.zeros(1, np.float32))).reshape(())
    if value.dtype.kind not in "biuf":
        return None
    known = node.sizes(0)
    if known is None and node.shape(0) is None:
        return None
    target = target_sizes(node, 0)
    return op.full(target, relax.const(value, str(value.dtype)), str(value.dtype))


@converts("Tile", since=6)
def tile(node: Node) -> Result:
    """Each axis repeated; repeats may be known only when the model runs."""
    x, shape = node.inputs[0], node.shape(0)
    if shape is None:
        return None
    repeats = target_sizes(node, 1)
    if all(isinstance(n, int) for n in repeats):
        return op.tile(x, repeats)
    # [a, b] -> [1, a, 1, b] -> [r, a, s, b] -> [r * a, s * b]
    apart = [n for size in shape for n in (1, size)]
    wide = [n for r, size in zip(repeats, shape, strict=True) for n in (r, size)]
    spread = node.emit(op.broadcast_to(node.emit(op.reshape(x, apart)), wide))
    return op.reshape(spread, [r * n for r, n in zip(repeats, shape, strict=True)])


@converts("Range", since=11)
def range_(node: Node) -> Result:
    """Numbers from start by delta, as many as lie before the limit.

    The count is computed when the model runs, where start, limit or delta are.
    """
    start, limit, delta = node.inputs
    given = [node.value(i) for i in range(3)]
    symbols = [node.sizes(i) for i in range(3)]
    dtype = node.dtype(0)
    if all(value is not None for value in given):
        first, last, step = (np.asarray(value).reshape(()) for value in given)
        count = max(int(np.ceil((last - first) / step)), 0)
        return relax.const((first + np.arange(count) * step).astype(dtype), dtype)
    numbers = [s.ravel()[0] for s in symbols if s is not None]
    if len(numbers) == 3 and dtype.startswith("int"):
        first, last, step = numbers
        if isinstance(step, int) and step == 1:
            count = sizes.simple(last - first)
            return op.arange(first, first + count, 1, dtype)
    span = node.emit(op.subtract(limit, start))
    if dtype.startswith("int"):
        # Rounded up: -((-span) // delta)
        steps = node.emit(op.negative(op.floor_divide(node.emit(op.negative(span)), delta)))
    else:
        steps = node.emit(op.astype(node.emit(op.ceil(node.emit(op.divide(span, delta)))), "int64"))
    steps = node.emit(op.maximum(op.astype(steps, "int64"), relax.const(0, "int64")))
    count = size_variable(node, steps, "count")
    index = node.emit(op.astype(node.emit(op.arange(0, count, 1, "int64")), dtype))
    return op.add(start, node.emit(op.multiply(index, delta)))


@converts("Unsqueeze")
def unsqueeze(node: Node) -> Result:
    """``x, axes -> x`` with sizes of 1 put in; axes are also read from a scalar, as exporters
    and ONNX's own function bodies write one."""
    axes = node.attrs.get("axes") if node.version < 13 else node.value(1)
    if axes is None:
        return None
    return op.expand_dims(node.inputs[0], [int(axis) for axis in np.ravel(axes)])
