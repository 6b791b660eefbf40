"""Operators that place, pick and order elements."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.compiler.importers.onnx.emit import const, fixed, kernel, op, ranked, setting
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.onnx.values import numpy_dtype


@converts("OneHot", since=9)
def one_hot(node: Node) -> Result:
    """``indices, depth, [off, on]``; an index out of range gives a row of ``off``."""
    depth = int(setting(node, 1, "depth").item())
    rank = node.ndim()
    axis = int(node.attrs.get("axis", -1)) % (rank + 1)

    def make(index: te.Tensor, values: te.Tensor) -> te.Tensor:
        shape = [*index.shape[:axis], depth, *index.shape[axis:]]

        def element(*at: Any) -> Expr:
            place = index(*at[:axis], *at[axis + 1 :])
            k = at[axis].astype(str(index.dtype))
            hit = place == k
            if not str(index.dtype).startswith("uint"):
                hit = tirx.any(hit, place == k - tirx.const(depth, str(index.dtype)))
            return tirx.Select(hit, values(1), values(0))

        return te.compute(shape, element, name="one_hot")

    return kernel(node, make, node.inputs[0], node.inputs[2], name="one_hot")


@converts("EyeLike", since=9)
def eye_like(node: Node) -> Result:
    shape = ranked(node)
    dtype = numpy_dtype(int(node.attrs["dtype"])) if "dtype" in node.attrs else node.dtype()
    offset = int(node.attrs.get("k", 0))

    def make() -> te.Tensor:
        one, zero = tirx.const(1, dtype), tirx.const(0, dtype)
        return te.compute(shape, lambda i, j: tirx.Select(j - i == offset, one, zero), name="eye")

    return kernel(node, make, name="eye")


@converts("CumSum", since=11)
@converts("CumProd", since=26)
def cumulative(node: Node) -> Result:
    """Running sums and products, from either end, with or without the element itself."""
    axis = int(setting(node, 1, "axis").item()) % node.ndim()
    x, reverse = node.inputs[0], bool(node.attrs.get("reverse", 0))
    if reverse:
        x = node.emit(op.flip(x, axis))
    scan = op.cumsum if node.op == "CumSum" else op.cumprod
    made = scan(x, axis, node.dtype(), bool(node.attrs.get("exclusive", 0)))
    return op.flip(node.emit(made), axis) if reverse else made


@converts("ReverseSequence", since=10)
def reverse_sequence(node: Node) -> Result:
    """The first ``lengths[b]`` elements along the time axis in reverse, the others as they are."""
    batch = int(node.attrs.get("batch_axis", 1))
    time = int(node.attrs.get("time_axis", 0))

    def make(x: te.Tensor, lengths: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Expr:
            size = lengths(at[batch]).astype("int64")
            t = at[time].astype("int64")
            place = list(at)
            place[time] = tirx.Select(t < size, size - 1 - t, t)
            return x(*place)

        return te.compute(x.shape, element, name="reverse")

    return kernel(node, make, *node.inputs[:2], name="reverse_sequence")


@converts("TensorScatter", since=24)
def tensor_scatter(node: Node) -> Result:
    """The cache with ``update`` written along an axis from ``write_indices[b]`` on."""
    axis = int(node.attrs.get("axis", -2)) % node.ndim()
    circular = str(node.attrs.get("mode", "linear")) == "circular"
    if axis == 0:
        raise Refused("axis 0, which is the batch")

    def make(cache: te.Tensor, update: te.Tensor, *start: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Expr:
            first = start[0](at[0]).astype("int64") if start else tirx.const(0, "int64")
            place = at[axis].astype("int64") - first
            if circular:
                place = tirx.floormod(place, cache.shape[axis])
            count = update.shape[axis]
            inside = tirx.all(place >= 0, place < count)
            near = tirx.max(tirx.min(place, count - 1), tirx.const(0, "int64"))
            new = update(*at[:axis], near, *at[axis + 1 :])
            return tirx.Select(inside, new, cache(*at))

        return te.compute(cache.shape, element, name="scatter")

    start = [] if node.input(2) is None else [node.input(2)]
    return kernel(node, make, *node.inputs[:2], *start, name="tensor_scatter")


@converts("Split")
def split(node: Node) -> Result:
    """Parts of given sizes, one by one where some are empty; others are left to TVM."""
    axis = int(node.attrs.get("axis", 0)) % node.ndim()
    parts: Any = node.attrs.get("split")
    if node.input(1) is not None:
        parts = setting(node, 1, "split").ravel().tolist()
    if parts is None or all(int(n) > 0 for n in parts):
        return None
    ends = np.cumsum([int(n) for n in parts]).tolist()
    return tuple(
        node.emit(op.strided_slice(node.inputs[0], [axis], [end - int(size)], [end]))
        for end, size in zip(ends, parts, strict=True)
    )


@converts("ArrayFeatureExtractor", domain="ai.onnx.ml")
def array_feature_extractor(node: Node) -> Result:
    """Elements of the last axis."""
    x, index = node.inputs[0], node.emit(op.flatten(node.inputs[1]))
    if node.ndim() == 1:
        x = node.emit(op.expand_dims(x, 0))
    return op.take(x, index, axis=int(x.ty.ndim) - 1, mode="clip")


@converts("Binarizer", domain="ai.onnx.ml")
def binarizer(node: Node) -> Result:
    limit = const(float(node.attrs.get("threshold", 0.0)), node.dtype())
    return op.astype(op.greater(node.inputs[0], limit), node.dtype())


@converts("Det")
def determinant(node: Node) -> Result:
    """``[..., M, M] -> [...]`` by elimination with the largest pivot of each column."""
    shape = ranked(node)
    size, same = fixed(node, shape[-2:], "the matrix")
    if size != same or size > 32:
        raise Refused(f"the determinant of a {size} x {same} matrix: at most 32 x 32 are supported")
    batch = shape[:-2]
    x = node.inputs[0]
    total: relax.Expr = const(1, node.dtype())
    for step in range(size):
        pivot = kernel(node, _pivot(step, size), x, name="pivot")
        factor = kernel(node, _factor(step), x, pivot, name="pivot_factor")
        total = node.emit(op.multiply(total, factor))
        if step + 1 < size:
            x = kernel(node, _eliminate(step), x, pivot, name="eliminate")
    if size == 0:
        return op.broadcast_to(total, relax.ShapeExpr(batch))
    return total


def _pivot(step: int, size: int) -> Any:
    """The row from ``step`` on whose element in column ``step`` is largest."""

    def make(x: te.Tensor) -> te.Tensor:
        batch = x.shape[:-2]

        def largest(*at: Any) -> Expr:
            k = te.reduce_axis((step, size), "k")
            return te.max(tirx.abs(x(*at, k, step)), axis=k)

        top = te.compute(batch, largest, name="top")

        def place(*at: Any) -> Expr:
            k = te.reduce_axis((step, size), "k")
            hit = tirx.abs(x(*at, k, step)) == top(*at)
            last = tirx.const(size - 1, "int32")
            return te.min(tirx.Select(hit, k.var.astype("int32"), last), axis=k)

        return te.compute(batch, place, name="pivot")

    return make


def _factor(step: int) -> Any:
    def make(x: te.Tensor, pivot: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Expr:
            value = x(*at, pivot(*at), step)
            return tirx.Select(pivot(*at) == step, value, -value)

        return te.compute(x.shape[:-2], element, name="factor")

    return make


def _eliminate(step: int) -> Any:
    def make(x: te.Tensor, pivot: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Expr:
            batch, i, j = at[:-2], at[-2], at[-1]
            at_pivot = pivot(*batch)
            row = tirx.Select(i == at_pivot, tirx.const(step, "int32"), i.astype("int32"))
            head = x(*batch, at_pivot, step)
            zero = tirx.const(0, str(x.dtype))
            safe = tirx.Select(head == zero, tirx.const(1, str(x.dtype)), head)
            times = tirx.Select(head == zero, zero, x(*batch, row, step) / safe)
            return x(*batch, row, j) - times * x(*batch, at_pivot, j)

        return te.compute(x.shape, element, name="eliminate")

    return make
