"""Float operators of com.microsoft that ONNX Runtime's optimizer writes."""

from __future__ import annotations

from tvm import relax

from burnish.compiler.importers.onnx.emit import astype, const, op
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts

MICROSOFT = "com.microsoft"


@converts("FusedMatMul", domain=MICROSOFT)
@converts("TransposeMatMul", domain=MICROSOFT)
def fused_matmul(node: Node) -> Result:
    """``alpha A B`` with either transposed in its last two axes."""
    if node.attrs.get("transBatchA") or node.attrs.get("transBatchB"):
        raise Refused("transBatchA or transBatchB: save the model without graph optimization")
    sides = []
    for index, name in enumerate(("transA", "transB")):
        x = node.inputs[index]
        rank = node.ndim(index)
        if node.attrs.get(name) and rank > 1:
            order = [*range(rank - 2), rank - 1, rank - 2]
            x = node.emit(op.permute_dims(x, order))
        sides.append(x)
    made = op.matmul(*sides)
    alpha = float(node.attrs.get("alpha", 1.0))
    return made if alpha == 1.0 else op.multiply(node.emit(made), const(alpha, node.dtype()))


@converts("Gelu", domain=MICROSOFT)
def gelu(node: Node) -> Result:
    return op.nn.gelu(node.inputs[0])


@converts("QuickGelu", domain=MICROSOFT)
def quick_gelu(node: Node) -> Result:
    """``x sigmoid(alpha x)``."""
    x, dtype = node.inputs[0], node.dtype()
    alpha = const(float(node.attrs.get("alpha", 1.702)), dtype)
    return op.multiply(x, op.sigmoid(node.emit(op.multiply(x, alpha))))


@converts("SimplifiedLayerNormalization")
@converts("SimplifiedLayerNormalization", domain=MICROSOFT)
def simplified_layer_normalization(node: Node) -> Result:
    """RMS norm over the axes from ``axis`` on, computed in float32."""
    rank = node.ndim()
    axes = list(range(int(node.attrs.get("axis", -1)) % rank, rank))
    return _rms(node, node.inputs[0], node.inputs[1], axes)


@converts("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(node: Node) -> Result:
    """``x, skip, gamma, bias -> norm, nothing, nothing, x + skip + bias``."""
    if node.wants(1) or node.wants(2):
        raise Refused("its statistics as outputs: save the model without graph optimization")
    total = node.emit(op.add(node.inputs[0], node.inputs[1]))
    if node.input(3) is not None:
        total = node.emit(op.add(total, node.input(3)))
    (made, _) = _rms(node, total, node.inputs[2], [node.ndim() - 1])
    return made, None, None, total


def _rms(node: Node, x: relax.Expr, gamma: relax.Expr, axes: list[int]) -> Result:
    dtype = str(x.ty.dtype)
    wide = astype(x, "float32")
    mean = node.emit(op.mean(node.emit(op.multiply(wide, wide)), axes, True))
    epsilon = const(float(node.attrs.get("epsilon", 1e-5)), "float32")
    factor = node.emit(op.rsqrt(op.add(mean, epsilon)))
    y = node.emit(op.multiply(wide, factor))
    return astype(node.emit(op.multiply(y, astype(gamma, "float32"))), dtype), factor
