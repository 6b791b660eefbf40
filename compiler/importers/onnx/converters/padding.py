"""Pad with a value that is known only when the model runs."""

from __future__ import annotations

import numpy as np
from tvm import relax

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Result, converts

op = relax.op


@converts("Pad", since=11)
def pad(node: Node) -> Result:
    """Padded with zeros, and the value written where a padded mask says so."""
    pads, axes, rank = node.value(1), node.value(3), node.ndim()
    if node.attrs.get("mode", "constant") != "constant" or pads is None or rank < 0:
        return None
    if node.input(2) is None or node.value(2) is not None:
        return None
    if (node.input(3) is not None and axes is None) or pads.min(initial=0) < 0:
        return None
    shape = node.shape()
    if shape is None:
        return None
    given = range(rank) if axes is None else [int(a) % rank for a in axes]
    widths = np.zeros((rank, 2), np.int64)
    for at, axis in enumerate(given):
        widths[axis] = pads[at], pads[at + len(given)]
    flat = [int(n) for n in widths.ravel()]
    x, dtype = node.inputs[0], node.dtype()
    inside = node.emit(op.full(shape, relax.const(1, "int8"), "int8"))
    mask = node.emit(op.nn.pad(inside, flat, pad_value=0))
    mask = node.emit(op.not_equal(mask, relax.const(0, "int8")))
    zeros = node.emit(op.nn.pad(x, flat, pad_value=0))
    value = node.emit(op.reshape(node.inputs[2], []))
    if str(value.ty.dtype) != dtype:
        value = node.emit(op.astype(value, dtype))
    return op.where(mask, zeros, value)
