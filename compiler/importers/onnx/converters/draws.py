"""Operators that draw: numbers are new at each call, from a seed or without one.

With a seed, the n-th call of a model in a process gives what the n-th gives in any other; the
numbers are not those of ONNX Runtime.
"""

from __future__ import annotations

import struct
import uuid
from typing import Any

import numpy as np
from onnx import TensorProto
from tvm import relax

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.onnx.values import numpy_dtype
from burnish.passes import draws

op = relax.op


def _key(node: Node) -> relax.Var:
    seed = node.attrs.get("seed")
    if seed is None:
        return node.emit(draws.key_of(uuid.uuid4().int & (2**63 - 1), None))
    number = int.from_bytes(node.name.encode()[:7], "little")
    bits = struct.unpack("<I", struct.pack("<f", float(seed)))[0]
    return node.emit(draws.key_of(number, bits))


def _dtype(node: Node, default: str) -> str:
    kind = node.attrs.get("dtype")
    dtype = default if kind is None else numpy_dtype(int(kind))
    if "float" not in dtype:
        raise Refused(f"draws of {dtype}: ONNX has them in floats only")
    return dtype


def _of_shape(node: Node) -> relax.Expr:
    return node.emit(op.zeros(relax.ShapeExpr([int(n) for n in node.attrs["shape"]]), "float32"))


def _const(value: float, dtype: str) -> relax.Expr:
    return relax.const(np.float64(value).astype(dtype), dtype)


def _scaled(node: Node, drawn: relax.Expr, scale: float, shift: float, dtype: str) -> Result:
    value = node.emit(op.multiply(drawn, _const(scale, "float32")))
    value = node.emit(op.add(value, _const(shift, "float32")))
    return value if dtype == "float32" else op.astype(value, dtype)


def _uniform(node: Node, like: relax.Expr, dtype: str) -> Result:
    low, high = (float(node.attrs.get(n, d)) for n, d in (("low", 0.0), ("high", 1.0)))
    drawn = node.emit(draws.draw(node.bb, _key(node), like, "uniform"))
    return _scaled(node, drawn, high - low, low, dtype)


def _normal(node: Node, like: relax.Expr, dtype: str) -> Result:
    mean, scale = (float(node.attrs.get(n, d)) for n, d in (("mean", 0.0), ("scale", 1.0)))
    drawn = node.emit(draws.draw(node.bb, _key(node), like, "normal"))
    return _scaled(node, drawn, scale, mean, dtype)


@converts("RandomUniform")
def random_uniform(node: Node) -> Result:
    return _uniform(node, _of_shape(node), _dtype(node, "float32"))


@converts("RandomUniformLike")
def random_uniform_like(node: Node) -> Result:
    return _uniform(node, _shaped(node), _dtype(node, node.dtype()))


@converts("RandomNormal")
def random_normal(node: Node) -> Result:
    return _normal(node, _of_shape(node), _dtype(node, "float32"))


@converts("RandomNormalLike")
def random_normal_like(node: Node) -> Result:
    return _normal(node, _shaped(node), _dtype(node, node.dtype()))


def _shaped(node: Node) -> relax.Expr:
    if node.shape(0) is None:
        raise Refused("an input of unknown shape: fix its sizes in example_inputs")
    return node.inputs[0]


@converts("Bernoulli")
def bernoulli(node: Node) -> Result:
    """1 with the probability that the input says, else 0."""
    x = _shaped(node)
    kind = int(node.attrs.get("dtype", node.graph.elem_type(x)))
    drawn = node.emit(draws.draw(node.bb, _key(node), x, "uniform"))
    wide = "float64" if node.dtype() == "float64" else "float32"
    chance = x if node.dtype() == wide else node.emit(op.astype(x, wide))
    drawn = drawn if wide == "float32" else node.emit(op.astype(drawn, wide))
    return op.astype(node.emit(op.less(drawn, chance)), numpy_dtype(kind))


@converts("Multinomial")
def multinomial(node: Node) -> Result:
    """``log-odds [B, C] -> classes [B, samples]``: the largest of odds plus Gumbel noise."""
    x, shape = _shaped(node), node.shape(0)
    assert shape is not None
    count, kind = int(node.attrs.get("sample_size", 1)), int(node.attrs.get("dtype", 6))
    if kind not in (TensorProto.INT32, TensorProto.INT64):
        raise Refused(f"dtype={kind}: ONNX has int32 and int64")
    wide = x if node.dtype() == "float32" else node.emit(op.astype(x, "float32"))
    spread = node.emit(op.expand_dims(wide, 1))
    each = relax.ShapeExpr([shape[0], count, shape[1]])
    room = node.emit(op.zeros(each, "float32"))
    drawn = node.emit(draws.draw(node.bb, _key(node), room, "uniform"))
    # u + 2^-25 is never 0, and never 1.
    drawn = node.emit(op.add(drawn, _const(2.0**-25, "float32")))
    gumbel = op.negative(op.log(op.negative(op.log(drawn))))
    best = node.emit(op.argmax(node.emit(op.add(spread, gumbel)), axis=2))
    return op.astype(best, numpy_dtype(kind))


@converts("Dropout", since=12)
def dropout(node: Node) -> Result:
    """In training mode: elements are dropped with the chance ``ratio``, the others scaled up.

    Without it nothing is, and the mask is all true.
    """
    training = False if node.input(2) is None else node.value(2)
    if training is None:
        raise Refused(
            "whether it trains is known only at run time: give training_mode at import (an "
            "initializer, or a plain bool among example_inputs)"
        )
    x, dtype = _shaped(node), node.dtype()
    ratio: Any = 0.5 if node.input(1) is None else node.value(1)
    if not bool(np.asarray(training).reshape(-1)[0]) or (ratio is not None and not np.any(ratio)):
        if not node.wants(1):
            return (x,)
        ones = op.full_like(node.emit(op.astype(x, "bool")), relax.const(np.array(True), "bool"))
        return x, ones
    if ratio is None:
        raise Refused(
            "a ratio known only at run time: give it at import (an initializer, or a plain number "
            "among example_inputs)"
        )
    share = float(np.asarray(ratio).reshape(-1)[0])
    drawn = node.emit(draws.draw(node.bb, _key(node), x, "uniform"))
    mask = node.emit(op.greater_equal(drawn, _const(share, "float32")))
    factor = 0.0 if share >= 1 else 1 / (1 - share)
    kept = node.emit(op.multiply(x, _const(factor, dtype)))
    return node.emit(op.where(mask, kept, _const(0.0, dtype))), mask
