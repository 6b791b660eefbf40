"""Quantized operators of com.microsoft, as ONNX Runtime's quantizer writes them.

Those that are no products are computed in float32 between a dequantization and a quantization;
ONNX Runtime's own integer kernels may differ by one step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from onnx import NodeProto
from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.compiler.importers.onnx import tvm_converters
from burnish.compiler.importers.onnx.converters.integer import scaled, shifted
from burnish.compiler.importers.onnx.converters.quantize import (
    dequantized,
    dynamically_quantized,
    quantized,
)
from burnish.compiler.importers.onnx.emit import astype, is_one, kernel, op
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts

MICROSOFT = "com.microsoft"


@converts("QLinearAdd", domain=MICROSOFT)
@converts("QLinearMul", domain=MICROSOFT)
def binary(node: Node) -> Result:
    """``A, sa, za, B, sb, zb, sc, zc -> C``."""
    make = op.add if node.op == "QLinearAdd" else op.multiply
    return _back(node, node.emit(make(_float(node, 0), _float(node, 3))), 6)


@converts("QLinearLeakyRelu", domain=MICROSOFT)
def leaky_relu(node: Node) -> Result:
    alpha = float(node.attrs.get("alpha", 0.01))
    return _back(node, node.emit(op.nn.leakyrelu(_float(node, 0), alpha)), 3)


@converts("QLinearSigmoid", domain=MICROSOFT)
def sigmoid(node: Node) -> Result:
    return _back(node, node.emit(op.sigmoid(_float(node, 0))), 3)


@converts("QLinearConcat", domain=MICROSOFT)
def concat(node: Node) -> Result:
    """``sy, zy, (X, s, z)... -> Y``."""
    parts = [_float(node, i) for i in range(2, len(node.inputs), 3)]
    joined = node.emit(op.concat(parts, int(node.attrs["axis"])))
    return _back(node, joined, 0, elem=node.elem_type(1))


@converts("QLinearWhere", domain=MICROSOFT)
def where(node: Node) -> Result:
    """``condition, X, sx, zx, Y, sy, zy, sz, zz -> Z``."""
    chosen = op.where(node.inputs[0], _float(node, 1), _float(node, 4))
    return _back(node, node.emit(chosen), 7)


@converts("QLinearSoftmax", domain=MICROSOFT)
def softmax(node: Node) -> Result:
    """The attribute ``opset`` says whether the axes from ``axis`` on are one, as before 13."""
    version = int(node.attrs.get("opset", 13))
    made = _as_standard(node, "Softmax", _float(node, 0), version, drop=("opset",))
    return _back(node, made, 3)


@converts("QLinearAveragePool", domain=MICROSOFT)
def average_pool(node: Node) -> Result:
    if node.attrs.get("channels_last"):
        raise Refused("channels_last=1: quantize the model with channels first")
    made = _as_standard(node, "AveragePool", _float(node, 0), 19, drop=("channels_last",))
    return _back(node, made, 3)


@converts("QLinearGlobalAveragePool", domain=MICROSOFT)
def global_average_pool(node: Node) -> Result:
    rank = node.ndim()
    last = bool(node.attrs.get("channels_last"))
    axes = list(range(1, rank - 1)) if last else list(range(2, rank))
    return _back(node, node.emit(op.mean(_float(node, 0), axes, True)), 3)


@converts("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(node: Node) -> Result:
    """``A float, B, sb, zb, bias -> A B + bias``; A is quantized over its own range."""
    whole, scale, zero = dynamically_quantized(node, node.inputs[0])
    left, right = shifted(node, whole, zero), shifted(node, node.inputs[1], node.input(3))
    total = node.emit(op.matmul(left, right, out_dtype="int32"))
    made = scaled(node, total, [scale, node.inputs[2]])
    return made if node.input(4) is None else op.add(made, node.input(4))


@converts("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(node: Node) -> Result:
    """``A [..., K], B [N, blocks, bytes], scales, zero points -> A W^T``, W of 2, 4 or 8 bits.

    Without zero points they are half the range; they may be packed like B, or numbers of A's type.
    """
    attrs = node.attrs
    depth, rows = int(attrs["K"]), int(attrs["N"])
    bits, block = int(attrs.get("bits", 4)), int(attrs["block_size"])
    if bits not in (2, 4, 8):
        raise Refused(f"bits={bits}: 2, 4 and 8 are supported")
    if node.input(4) is not None:
        raise Refused("g_idx (columns in another order): quantize without act-order")
    blocks, per = -(-depth // block), 8 // bits
    mask = tirx.const((1 << bits) - 1, "int32")
    zero = node.input(3)
    packed = zero is not None and str(zero.ty.dtype) == "uint8"

    def pick(byte: Expr, place: Any) -> Expr:
        shift = (tirx.floormod(place, per) * bits).astype("int32")
        return (byte.astype("int32") >> shift) & mask

    def make(b: te.Tensor, s: te.Tensor, *z: te.Tensor) -> te.Tensor:
        def element(n: Any, k: Any) -> Expr:
            at, inner = tirx.floordiv(k, block), tirx.floormod(k, block)
            value = pick(b(n, at, tirx.floordiv(inner, per)), inner).astype("float32")
            middle: Expr = tirx.const(float(1 << (bits - 1)), "float32")
            if z and packed:
                middle = pick(z[0](n, tirx.floordiv(at, per)), at).astype("float32")
            elif z:
                middle = z[0](n, at).astype("float32")
            return (value - middle) * s(n, at).astype("float32")

        return te.compute((rows, depth), element, name="dequantize")

    given = [node.inputs[1], node.emit(op.reshape(node.inputs[2], [rows, blocks]))]
    if zero is not None:
        wide = -(-blocks // per) if packed else blocks
        given.append(node.emit(op.reshape(zero, [rows, wide])))
    weights = kernel(node, make, *given, name="dequantize")
    x = astype(node.inputs[0], "float32")
    y = node.emit(op.matmul(x, node.emit(op.permute_dims(weights))))
    if node.input(5) is not None:
        y = node.emit(op.add(y, astype(node.input(5), "float32")))
    return astype(y, node.dtype())


def _float(node: Node, index: int) -> relax.Expr:
    """The tensor at ``index`` with the scale and zero point behind it, as float32."""
    scale, zero = node.inputs[index + 1], node.input(index + 2)
    return dequantized(node, node.inputs[index], scale, zero, _single)


def _back(node: Node, x: relax.Expr, index: int, elem: int | None = None) -> relax.Expr:
    """``x`` quantized by the scale at ``index`` and the zero point behind it."""
    zero = node.input(index + 1)
    if elem is None:
        elem = node.elem_type(index + 1) if zero is not None else node.elem_type(0)
    return quantized(node, x, node.inputs[index], zero, elem, _single)


def _single(shape: Any, _at: Any) -> list[int]:
    if not all(is_one(n) for n in shape):
        raise Refused("a scale for each channel of an operator that takes one")
    return [0] * len(shape)


def _as_standard(
    node: Node, name: str, x: relax.Expr, version: int, drop: tuple[str, ...]
) -> relax.Expr:
    """What TVM's converter of an operator of ONNX gives on ``x`` with this node's attributes."""
    proto = NodeProto()
    proto.CopyFrom(node.proto)
    proto.op_type, proto.domain = name, ""
    kept = [a for a in node.proto.attribute if a.name not in drop]
    del proto.attribute[:]
    proto.attribute.extend(kept)
    attrs = {k: v for k, v in node.attrs.items() if k not in drop}
    inner = replace(node, op=name, domain="", version=version, inputs=[x], attrs=attrs, proto=proto)
    return node.emit(tvm_converters.convert(inner))
