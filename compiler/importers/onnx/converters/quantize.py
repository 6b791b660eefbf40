"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear, of all types and granularities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import TensorProto
from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.compiler.importers.onnx.converters.casts import POWER, from_common, to_common
from burnish.compiler.importers.onnx.emit import const, is_one, kernel, op
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.onnx.small_types import INTEGER_RANGE
from burnish.compiler.importers.onnx.values import CARRIED, numpy_dtype


@converts("QuantizeLinear")
@converts("QuantizeLinear", domain="com.microsoft")
def quantize_linear(node: Node) -> Result:
    """``saturate(round(x / scale) + zero_point)``; 8-bit floats and less are encoded, not rounded.

    The division has the precision of ``precision``, else that of the scale.
    """
    attrs, zero = node.attrs, node.input(2)
    to = node.elem_type(2) if zero is not None else int(attrs.get("output_dtype", 0))
    to = to or TensorProto.UINT8
    x, scale, kind = node.inputs[0], node.inputs[1], node.elem_type(1)
    if kind == TensorProto.INT32:
        raise Refused("a scale of type int32: cast it to float")
    precision = numpy_dtype(int(attrs.get("precision", 0)) or (1 if kind == POWER else kind))
    place = _Place(node)
    scale = to_common(node, scale, kind)
    if to in INTEGER_RANGE:
        return node.typed(quantized(node, x, scale, zero, to, place.at, precision), to)
    divided = kernel(
        node,
        lambda t, s: te.compute(
            t.shape, lambda *at: _ratio(t(*at), s(*place.at(s.shape, at)), precision), name="ratio"
        ),
        x,
        scale,
        name="divide",
    )
    if zero is not None:
        offset = to_common(node, zero, to)
        divided = kernel(
            node,
            lambda t, z: te.compute(
                t.shape, lambda *at: t(*at) + z(*place.at(z.shape, at)), name="offset"
            ),
            divided,
            offset,
            name="offset",
        )
    return node.typed(from_common(node, divided, to, bool(attrs.get("saturate", 1))), to)


@converts("DequantizeLinear")
@converts("DequantizeLinear", domain="com.microsoft")
def dequantize_linear(node: Node) -> Result:
    """``(x - zero_point) * scale``, computed in float32."""
    given, kind = node.elem_type(0), node.elem_type(1)
    dtype = int(node.attrs.get("output_dtype", 0)) or (1 if kind == POWER else kind)
    zero = node.input(2)
    x, scale = to_common(node, node.inputs[0], given), to_common(node, node.inputs[1], kind)
    if zero is not None:
        zero = to_common(node, zero, given)
    return dequantized(node, x, scale, zero, _Place(node).at, numpy_dtype(dtype))


@converts("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(node: Node) -> Result:
    """``x -> uint8, scale, zero point``; the range holds 0, and the scale is never 0."""
    return dynamically_quantized(node, node.inputs[0])


def dynamically_quantized(node: Node, x: relax.Expr) -> tuple[relax.Expr, relax.Expr, relax.Expr]:
    """``x`` as uint8 over its own range, with scale and zero point (scalars)."""
    zero = const(0, "float32")
    high = node.emit(op.maximum(op.max(x), zero))
    low = node.emit(op.minimum(op.min(x), zero))
    full = tirx.const(255, "float32")

    def make_scale(high: te.Tensor, low: te.Tensor) -> te.Tensor:
        def value() -> Expr:
            one = tirx.const(1, "float32")
            return tirx.Select(high() == low(), one, high() - low()) / full

        return te.compute((), value, name="scale")

    def make_zero(low: te.Tensor, s: te.Tensor) -> te.Tensor:
        def value() -> Expr:
            place = tirx.const(0, "float32") - low() / s()
            return tirx.nearbyint(clipped(place, 0, 255)).astype("int32").astype("uint8")

        return te.compute((), value, name="zero_point")

    scale = kernel(node, make_scale, high, low, name="dynamic_scale")
    point = kernel(node, make_zero, low, scale, name="dynamic_zero_point")
    made = quantized(node, x, scale, point, TensorProto.UINT8, lambda shape, at: [], "float32")
    return made, scale, point


class _Place:
    """Where the scale of an element is: one for all, one for each of an axis, or blocks of it."""

    def __init__(self, node: Node) -> None:
        rank = node.ndim()
        axis = int(node.attrs.get("axis", 1))
        scale = node.ndim(1)
        self.block = int(node.attrs.get("block_size", 0))
        single = scale == 0 or all(is_one(n) for n in node.shape(1) or [0])
        if not single and not -rank <= axis < rank:
            raise Refused(f"axis {axis} of a tensor of rank {rank}")
        if self.block and scale != rank and not single:
            raise Refused(f"a scale of rank {scale} for blocks of a tensor of rank {rank}")
        if not self.block and scale > 1 and not single:
            raise Refused(f"a scale of rank {scale} without block_size")
        self.axis = axis % rank if rank and not single else 0

    def at(self, shape: Sequence[Any], at: Sequence[Any]) -> list[Any]:
        if all(is_one(n) for n in shape):
            return [0] * len(shape)
        if not self.block:
            return [at[self.axis]]
        place = list(at)
        place[self.axis] = tirx.floordiv(at[self.axis], self.block)
        return place


def quantized(
    node: Node,
    x: relax.Expr,
    scale: relax.Expr,
    zero: relax.Expr | None,
    to: int,
    place: Any,
    precision: str = "float32",
) -> relax.Var:
    """Numbers as integers of type ``to``; ``place(shape, at)`` is where their scale is."""
    low, high = INTEGER_RANGE[to]
    dtype = CARRIED.get(to) or numpy_dtype(to)

    def make(t: te.Tensor, s: te.Tensor, *z: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Expr:
            value = _ratio(t(*at), s(*place(s.shape, at)), precision)
            value = tirx.nearbyint(value.astype("float32"))
            if z:
                value = value + z[0](*place(z[0].shape, at)).astype("float32")
            return clipped(value, low, high).astype("int32").astype(dtype)

        return te.compute(t.shape, element, name="quantize")

    more = [] if zero is None else [zero]
    return kernel(node, make, x, scale, *more, name="quantize")


def dequantized(
    node: Node,
    x: relax.Expr,
    scale: relax.Expr,
    zero: relax.Expr | None,
    place: Any,
    dtype: str = "float32",
) -> relax.Var:
    """``(x - zero) * scale``; ``place(shape, at)`` is where the scale of an element is."""

    def make(t: te.Tensor, s: te.Tensor, *z: te.Tensor) -> te.Tensor:
        wide = "float32" if "float" in str(t.dtype) else "int32"

        def element(*at: Any) -> Expr:
            value = t(*at).astype(wide)
            if z:
                value = value - z[0](*place(z[0].shape, at)).astype(wide)
            factor = s(*place(s.shape, at)).astype("float32")
            return (value.astype("float32") * factor).astype(dtype)

        return te.compute(t.shape, element, name="dequantize")

    more = [] if zero is None else [zero]
    return kernel(node, make, x, scale, *more, name="dequantize")


def _ratio(x: Expr, scale: Expr, precision: str) -> Expr:
    """``x / scale`` in ``precision``; below float32 by way of it, which gives the same."""
    wide = "float64" if precision == "float64" else "float32"
    a, b = x.astype(precision).astype(wide), scale.astype(precision).astype(wide)
    return (a / b).astype(precision).astype(wide)


def clipped(value: Expr, low: int, high: int) -> Expr:
    dtype = str(value.ty.dtype)
    return tirx.max(tirx.min(value, tirx.const(high, dtype)), tirx.const(low, dtype))
