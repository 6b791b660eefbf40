"""Convolutions and matrix products of integers, and of quantized tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax, tirx
from tvm.ir import Expr

from burnish.compiler.importers.onnx.converters.quantize import clipped
from burnish.compiler.importers.onnx.emit import (
    elementwise,
    fixed,
    is_one,
    op,
)
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.onnx.small_types import FLOATS, INTEGER_RANGE
from burnish.compiler.importers.onnx.values import numpy_dtype


@converts("MatMulInteger", since=10)
def matmul_integer(node: Node) -> Result:
    a = shifted(node, node.inputs[0], _rows(node, node.input(2)))
    b = shifted(node, node.inputs[1], node.input(3))
    return op.matmul(a, b, out_dtype="int32")


@converts("QLinearMatMul", since=10)
def qlinear_matmul(node: Node) -> Result:
    """``(a - za) (b - zb) sa sb / sy + zy``, products summed as int32."""
    a, b = node.inputs[0], node.inputs[3]
    scale_a, scale_b = _rows(node, node.inputs[1]), node.inputs[4]
    to = node.elem_type(7)
    if node.elem_type(0) in FLOATS or to not in INTEGER_RANGE:
        raise Refused("products of 8-bit floats: dequantize them before the product")
    left = shifted(node, a, _rows(node, node.inputs[2]))
    right = shifted(node, b, node.inputs[5])
    total = node.emit(op.matmul(left, right, out_dtype="int32"))
    return requantized(node, total, [scale_a, scale_b], node.inputs[6], node.inputs[7], to)


@converts("ConvInteger", since=10)
def conv_integer(node: Node) -> Result:
    x = shifted(node, node.inputs[0], node.input(2))
    w = shifted(node, node.inputs[1], _first(node, node.input(3), node.ndim(1)))
    return convolution(node, x, w)


@converts("QLinearConv", since=10)
def qlinear_conv(node: Node) -> Result:
    """As QLinearMatMul; weights may have a scale and a zero point an output channel."""
    x, xs, xz, w, ws, wz, ys, yz = node.inputs[:8]
    rank, to = int(x.ty.ndim), node.elem_type(7)
    left = shifted(node, x, xz)
    right = shifted(node, w, _first(node, wz, rank))
    total = node.emit(convolution(node, left, right, weight=3, ndim=rank))
    bias = node.input(8)
    if bias is not None:
        total = node.emit(op.add(total, op.reshape(bias, [1, -1] + [1] * (rank - 2))))
    scales = [xs, _first(node, ws, rank - 1)]
    return requantized(node, total, scales, ys, yz, to)


@converts("QGemm", domain="com.microsoft")
def qgemm(node: Node) -> Result:
    """``alpha (A' B' + C) sa sb / sy + zy``; without ``sy`` the result stays float32."""
    a, sa, za, b, sb, zb = node.inputs[:6]
    left, right = shifted(node, a, za), shifted(node, b, zb)
    if node.attrs.get("transA"):
        left = node.emit(op.permute_dims(left))
    if node.attrs.get("transB"):
        right = shifted(node, b, _first(node, zb, 2))
        right = node.emit(op.permute_dims(right))
    total = node.emit(op.matmul(left, right, out_dtype="int32"))
    if node.input(6) is not None:
        total = node.emit(op.add(total, node.input(6)))
    alpha = float(node.attrs.get("alpha", 1.0))
    scales = [sa, sb]
    if node.input(7) is None:
        return scaled(node, total, scales, alpha)
    return requantized(node, total, scales, node.input(7), node.input(8), node.elem_type(8), alpha)


@converts("MatMulIntegerToFloat", domain="com.microsoft")
def matmul_integer_to_float(node: Node) -> Result:
    """``A, B, sa, sb, za, zb, bias -> (A - za) (B - zb) sa sb + bias``."""
    a = shifted(node, node.inputs[0], _rows(node, node.input(4)))
    b = shifted(node, node.inputs[1], node.input(5))
    total = node.emit(op.matmul(a, b, out_dtype="int32"))
    made = scaled(node, total, [_rows(node, node.inputs[2]), node.inputs[3]])
    return made if node.input(6) is None else op.add(made, node.input(6))


def shifted(node: Node, x: relax.Expr, zero: relax.Expr | None) -> relax.Var:
    """``x - zero`` as int32; ``zero`` broadcasts."""
    if zero is None:
        return node.emit(op.astype(x, "int32"))
    return elementwise(
        node,
        lambda v, z: v.astype("int32") - z.astype("int32"),
        x,
        _flat(node, zero),
        name="shift",
    )


def scaled(
    node: Node, total: relax.Expr, scales: Sequence[relax.Expr], alpha: float = 1.0
) -> relax.Var:
    """Sums of products as float32."""

    def rule(v: Expr, a: Expr, b: Expr) -> Expr:
        return v.astype("float32") * (tirx.const(alpha, "float32") * a * b)

    flat = [_flat(node, s) for s in scales]
    return elementwise(node, rule, total, *flat, name="scale")


def requantized(
    node: Node,
    total: relax.Expr,
    scales: Sequence[relax.Expr],
    scale: relax.Expr,
    zero: relax.Expr | None,
    to: int,
    alpha: float = 1.0,
) -> relax.Var:
    """``saturate(round(total * alpha * scales / scale) + zero)``, rounded as ONNX Runtime does."""
    low, high = INTEGER_RANGE[to]

    def rule(v: Expr, a: Expr, b: Expr, s: Expr, *z: Expr) -> Expr:
        factor = a.astype("float32") * b.astype("float32") / s.astype("float32")
        if alpha != 1.0:
            factor = tirx.const(alpha, "float32") * factor
        value = tirx.nearbyint(v.astype("float32") * factor)
        if z:
            value = value + z[0].astype("float32")
        return clipped(value, low, high).astype("int32").astype(numpy_dtype(to))

    more = [_flat(node, s) for s in (*scales, scale, *([] if zero is None else [zero]))]
    return elementwise(node, rule, total, *more, name="requantize")


def convolution(
    node: Node, x: relax.Expr, w: relax.Expr, *, weight: int = 1, ndim: int | None = None
) -> relax.Expr:
    """Convolution of int32 tensors; settings are those of the node."""
    shape = [int(n) if hasattr(n, "value") else n for n in x.ty.shape]
    rank = len(shape)
    kernel_shape = [int(n) for n in node.attrs.get("kernel_shape") or list(w.ty.shape)[2:]]
    strides = list(node.attrs.get("strides") or [1] * (rank - 2))
    dilations = list(node.attrs.get("dilations") or [1] * (rank - 2))
    pads = conv_pads(node, shape[2:], kernel_shape, strides, dilations)
    make: Callable[..., relax.Expr] | None = {
        3: op.nn.conv1d,
        4: op.nn.conv2d,
        5: op.nn.conv3d,
    }.get(rank)
    if make is None:
        raise Refused(f"a convolution over {rank - 2} axes: only 1, 2 and 3 are supported")
    return make(
        x,
        w,
        strides=strides,
        padding=pads,
        dilation=dilations,
        groups=int(node.attrs.get("group", 1)),
        out_dtype="int32",
    )


def conv_pads(
    node: Node,
    sizes: Sequence[Any],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Padding in front of each axis, then behind each."""
    auto = str(node.attrs.get("auto_pad", "NOTSET"))
    axes = len(kernel_shape)
    if auto in ("NOTSET", ""):
        return [int(n) for n in node.attrs.get("pads") or [0] * (2 * axes)]
    if auto == "VALID":
        return [0] * (2 * axes)
    front, back = [], []
    for size, extent, stride, dilation in zip(sizes, kernel_shape, strides, dilations, strict=True):
        reach = (extent - 1) * dilation + 1
        if stride == 1:
            total = reach - 1
        else:
            (known,) = fixed(node, [size], f"a size under auto_pad={auto} and strides")
            total = max((-(-known // stride) - 1) * stride + reach - known, 0)
        half = total // 2 if auto == "SAME_UPPER" else total - total // 2
        front.append(half)
        back.append(total - half)
    return front + back


def _flat(node: Node, value: relax.Expr) -> relax.Expr:
    """One value as a scalar, so that it broadcasts to any rank."""
    shape = list(value.ty.shape)
    if shape and all(is_one(n) for n in shape):
        return node.emit(op.reshape(value, []))
    return value


def _rows(node: Node, value: relax.Expr | None) -> relax.Expr | None:
    """A vector of one number a row, as a column."""
    if value is None or int(value.ty.ndim) != 1 or is_one(value.ty.shape[0]):
        return value
    return node.emit(op.expand_dims(value, 1))


def _first(node: Node, value: relax.Expr | None, rank: int) -> relax.Expr | None:
    """A vector of one number for each index of the first of ``rank`` axes, to broadcast."""
    if value is None or int(value.ty.ndim) != 1 or is_one(value.ty.shape[0]):
        return value
    return node.emit(op.reshape(value, [-1] + [1] * (rank - 1)))
