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
