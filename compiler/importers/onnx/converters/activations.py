"""Activations whose forms TVM's converters take only in part."""

from __future__ import annotations

from tvm import relax

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Result, converts

op = relax.op


@converts("PRelu", since=1)
def prelu(node: Node) -> Result:
    """``x`` where it is positive, else ``slope * x``; before version 7 a slope is one a channel."""
    x, slope = node.inputs
    if node.version < 7 and node.ndim(1) == 1 and node.ndim(0) > 2 and node.shape(1) != [1]:
        channels = [-1 if axis == 1 else 1 for axis in range(node.ndim(0))]
        slope = node.emit(op.reshape(slope, channels))
    below = node.emit(op.less(x, relax.const(0, node.dtype())))
    return op.where(below, node.emit(op.multiply(slope, x)), x)


@converts("Cosh", since=9)
def cosh(node: Node) -> Result:
    """``(exp(x) + exp(-x)) / 2``: LLVM has no intrinsic for it."""
    x = node.inputs[0]
    total = node.emit(op.add(node.emit(op.exp(x)), node.emit(op.exp(node.emit(op.negative(x))))))
    return op.multiply(total, relax.const(0.5, node.dtype()))


@converts("Sinh", since=9)
def sinh(node: Node) -> Result:
    """``(exp(x) - exp(-x)) / 2``, and near 0 its series, where the difference would cancel."""
    x, dtype = node.inputs[0], node.dtype()

    def number(value: float) -> relax.Expr:
        return relax.const(value, dtype)

    difference = op.subtract(node.emit(op.exp(x)), node.emit(op.exp(node.emit(op.negative(x)))))
    far = node.emit(op.multiply(node.emit(difference), number(0.5)))
    square = node.emit(op.multiply(x, x))
    series = number(1.0)
    for factor in (42.0, 20.0, 6.0):  # x (1 + x²/6 (1 + x²/20 (1 + x²/42)))
        inner = node.emit(op.multiply(node.emit(op.multiply(square, number(1 / factor))), series))
        series = node.emit(op.add(number(1.0), inner))
    near = node.emit(op.multiply(x, series))
    small = node.emit(op.less(node.emit(op.abs(x)), number(0.5)))
    return op.where(small, near, far)
