"""Clip, Gather, Pow, Slice: where TVM's converters write more than there is to do."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import converts

op = relax.op
WHOLE = 10**9  # exporters write an end beyond every size in several ways


@converts("Clip")
def clip(node: Node) -> relax.Expr | None:
    """Constant limits as ``clip``; TVM's converter tests them for NaN at run time."""
    x = node.input(0)
    if x is None or not str(x.ty.dtype).startswith("float"):
        return None
    low, high = node.attrs.get("min", -np.inf), node.attrs.get("max", np.inf)
    for index in (0, 1):
        if node.input(index + 1) is not None:
            limit = node.value(index + 1)
            if limit is None or limit.size != 1 or np.isnan(limit).any():
                return None
            low, high = (limit.item(), high) if index == 0 else (low, limit.item())
    if np.isinf(low) and np.isinf(high):
        return x
    if low == 0 and np.isinf(high):
        return op.nn.relu(x)
    if np.isinf(low):
        return op.minimum(x, relax.const(high, str(x.ty.dtype)))
    if np.isinf(high):
        return op.maximum(x, relax.const(low, str(x.ty.dtype)))
    return op.clip(x, float(low), float(high))


@converts("Gather")
def gather(node: Node) -> relax.Expr | None:
    """Rows of a tensor; negative indices count from the end.

    Constant indices are made positive here, others at run time. Out of range reads the edge.
    """
    x, index = node.inputs
    if x is None or index is None or not isinstance(x.ty, relax.TensorType) or x.ty.shape is None:
        return None
    axis = int(node.attrs.get("axis", 0)) % x.ty.ndim
    size, fixed = x.ty.shape[axis], node.value(1)
    if fixed is not None and isinstance(size, tvm.tirx.IntImm):
        positive = np.where(fixed < 0, fixed + int(size), fixed)
        if fixed.size and (positive.min() < 0 or positive.max() >= int(size)):
            raise ValueError(f"index {fixed.tolist()} is out of range for axis {axis} of {size}")
        return op.take(x, relax.const(positive, str(fixed.dtype)), axis=axis, mode="fast")
    if not isinstance(size, tvm.tirx.IntImm) or not isinstance(index.ty, relax.TensorType):
        return None
    dtype = str(index.ty.dtype)
    if not dtype.startswith("uint"):
        wrapped = node.emit(op.add(index, relax.const(int(size), dtype)))
        below = node.emit(op.less(index, relax.const(0, dtype)))
        index = node.emit(op.where(below, wrapped, index))
    return op.take(x, index, axis=axis, mode="clip")


@converts("Slice")
def slice_(node: Node) -> relax.Expr | None:
    """Ranges with constant limits, in bounds; an open axis taken whole is left alone.

    TVM writes ``min(1000000000, batch)`` there, which nothing proves equal to ``batch``.
    """
    x = node.input(0)
    given = [node.attrs.get("starts"), node.attrs.get("ends"), node.attrs.get("axes"), None]
    for index in range(4):
        if node.input(index + 1) is not None:
            value = node.value(index + 1)
            if value is None:
                return None
            given[index] = value.tolist()
    if x is None or given[0] is None or given[1] is None:
        return None
    if not isinstance(x.ty, relax.TensorType) or x.ty.shape is None:
        return None
    axes = given[2] or list(range(len(given[0])))
    taken: list[tuple[int, int, int, int]] = []
    for axis, start, end, step in zip(
        axes, given[0], given[1], given[3] or [1] * len(axes), strict=True
    ):
        size = x.ty.shape[axis % x.ty.ndim]
        if isinstance(size, tvm.tirx.IntImm) and step > 0:
            limits = slice(start, end, step).indices(int(size))
            if limits != (0, int(size), 1):
                taken.append((axis % x.ty.ndim, limits[0], max(limits[:2]), step))
        elif (start, step) != (0, 1) or end < WHOLE:
            return None
    if not taken:
        return x
    parts = [list(part) for part in zip(*taken, strict=True)]
    return op.strided_slice(x, *parts, assume_inbound=True)
