"""Norms with their statistics as outputs, and norms that TVM has no converter for."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from burnish.compiler.importers.onnx.emit import astype, const, op, ranked
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.onnx.values import numpy_dtype


@converts("LayerNormalization", since=17)
def layer_normalization(node: Node) -> Result:
    """``x, gamma, beta -> y, mean, 1 / deviation``; the statistics have the type ``stash_type``.

    Without them it is left to TVM.
    """
    if not node.wants(1) and not node.wants(2):
        return None
    axes = _axes_from(node)
    stash = numpy_dtype(int(node.attrs.get("stash_type", 1)))
    x = astype(node.inputs[0], stash)
    mean = node.emit(op.mean(x, axes, True))
    off = node.emit(op.subtract(x, mean))
    variance = op.mean(node.emit(op.multiply(off, off)), axes, True)
    epsilon = const(float(node.attrs.get("epsilon", 1e-5)), stash)
    factor = node.emit(op.rsqrt(op.add(node.emit(variance), epsilon)))
    y = astype(node.emit(op.multiply(off, factor)), node.dtype())
    y = op.multiply(y, node.inputs[1])
    if node.input(2) is not None:
        y = op.add(node.emit(y), node.input(2))
    return y, mean, factor


@converts("RMSNormalization", since=23)
def rms_normalization(node: Node) -> Result:
    """``x / sqrt(mean(x^2) + epsilon) * gamma`` over the last axes."""
    axes = _axes_from(node)
    stash = numpy_dtype(int(node.attrs.get("stash_type", 1)))
    gamma = node.inputs[1]
    plain = node.dtype() == stash == node.dtype(1)
    if plain and len(axes) == node.ndim(1) < node.ndim():
        epsilon = float(node.attrs.get("epsilon", 1e-5))
        return op.nn.rms_norm(node.inputs[0], gamma, axes, epsilon)
    x = astype(node.inputs[0], stash)
    mean = node.emit(op.mean(node.emit(op.multiply(x, x)), axes, True))
    epsilon = const(float(node.attrs.get("epsilon", 1e-5)), stash)
    y = node.emit(op.multiply(x, op.rsqrt(op.add(mean, epsilon))))
    return op.multiply(astype(y, node.dtype(1)), gamma)


def _axes_from(node: Node) -> list[int]:
    rank = node.ndim()
    return list(range(int(node.attrs.get("axis", -1)) % rank, rank))


@converts("LpNormalization")
def lp_normalization(node: Node) -> Result:
    """``x / |x|_p`` along one axis, 0 where the norm is 0."""
    x, dtype = node.inputs[0], node.dtype()
    axis, power = int(node.attrs.get("axis", -1)), int(node.attrs.get("p", 2))
    if power == 1:
        norm = op.sum(node.emit(op.abs(x)), [axis], True)
    elif power == 2:
        norm = op.sqrt(node.emit(op.sum(node.emit(op.multiply(x, x)), [axis], True)))
    else:
        raise Refused(f"p={power}: ONNX has 1 and 2")
    norm = node.emit(norm)
    zero = const(0, dtype)
    empty = node.emit(op.equal(norm, zero))
    safe = node.emit(op.where(empty, const(1, dtype), norm))
    return op.where(empty, zero, node.emit(op.divide(x, safe)))


@converts("BatchNormalization", since=14)
def batch_normalization(node: Node) -> Result:
    """Training mode: the batch's own mean and variance, and the running ones."""
    if not node.attrs.get("training_mode"):
        if node.wants(1) or node.wants(2):
            raise Refused("running statistics as outputs without training_mode")
        return None
    x, gamma, beta, mean_in, var_in = node.inputs[:5]
    rank = node.ndim()
    axes = [0, *range(2, rank)]
    momentum = float(node.attrs.get("momentum", 0.9))
    kind = str(mean_in.ty.dtype)
    wide = astype(x, kind)
    mean = node.emit(op.mean(wide, axes, True))
    off = node.emit(op.subtract(wide, mean))
    variance = node.emit(op.mean(node.emit(op.multiply(off, off)), axes, True))
    epsilon = const(float(node.attrs.get("epsilon", 1e-5)), kind)
    y = node.emit(op.multiply(off, op.rsqrt(op.add(variance, epsilon))))
    shape = [1, -1] + [1] * (rank - 2)
    scale, shift = (node.emit(op.reshape(astype(v, kind), shape)) for v in (gamma, beta))
    y = astype(node.emit(op.add(op.multiply(y, scale), shift)), node.dtype())

    def running(old: relax.Expr, new: relax.Expr) -> relax.Expr:
        flat = node.emit(op.squeeze(new, axes))
        share, rest = const(momentum, kind), const(1 - momentum, kind)
        return node.emit(op.add(op.multiply(old, share), op.multiply(flat, rest)))

    return y, running(mean_in, mean), running(astype(var_in, kind), variance)


@converts("Dropout", since=7)
def dropout(node: Node) -> Result:
    """Nothing is dropped in inference, or with a ratio of 0; the mask is all true then."""
    if node.version >= 12:
        training, ratio = _known(node, 2, False), _known(node, 1, 0.5)
        if training is None or (training and ratio != 0):
            return None
    x = node.inputs[0]
    if not node.wants(1):
        return (x,)
    mask = op.broadcast_to(const(True, "bool"), relax.ShapeExpr(ranked(node)))
    return x, astype(node.emit(mask), "bool" if node.version >= 10 else node.dtype())


def _known(node: Node, index: int, default: Any) -> Any:
    if node.input(index) is None:
        return default
    value = node.value(index)
    return None if value is None else np.asarray(value).item()
