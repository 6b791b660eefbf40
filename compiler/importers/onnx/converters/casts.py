"""Cast, CastLike and BitCast, to and from types below 16 bits too."""

from __future__ import annotations

from collections.abc import Callable

from onnx import TensorProto
from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.onnx.small_types import (
    FLOATS,
    INTEGER_RANGE,
    decode,
    decode_power,
    encode,
    encode_power,
)
from burnish.compiler.importers.onnx.tvm_converters import REFUSED_TYPES
from burnish.compiler.importers.onnx.values import CARRIED, numpy_dtype

POWER = int(TensorProto.FLOAT8E8M0)
SMALL = {*FLOATS, *CARRIED, POWER}
NOT_NUMBERS = {
    kind: f"{TensorProto.DataType.Name(kind)} has no form in TVM: take this step out of the model"
    for kind in REFUSED_TYPES
}


@converts("Cast")
def cast(node: Node) -> Result:
    """Small types by their bits; others are left to TVM's converter."""
    return _cast(node, int(node.attrs["to"]))


@converts("CastLike")
def cast_like(node: Node) -> Result:
    return _cast(node, node.elem_type(1))


def _cast(node: Node, to: int) -> Result:
    given, saturate = node.elem_type(0), bool(node.attrs.get("saturate", 1))
    for kind in (given, to):
        if kind in NOT_NUMBERS:
            raise Refused(NOT_NUMBERS[kind])
    if given == to:
        return node.inputs[0]
    if given not in SMALL and to not in SMALL:
        return None
    mode = str(node.attrs.get("round_mode", "up"))
    x = to_common(node, node.inputs[0], given)
    if to not in SMALL:
        return relax.op.astype(x, numpy_dtype(to)) if str(x.ty.dtype) != numpy_dtype(to) else x
    return node.typed(from_common(node, x, to, saturate, mode), to)


def to_common(node: Node, x: relax.Expr, kind: int) -> relax.Expr:
    """A tensor of a small type as float32 or as the integers it is carried in."""
    if kind == POWER:
        return _elementwise(node, x, lambda v: decode_power(tirx.reinterpret("uint8", v)))
    if kind in FLOATS:
        small = FLOATS[TensorProto.FLOAT8E4M3FN if kind == TensorProto.FLOAT4E2M1 else kind]
        return _elementwise(node, x, lambda v: decode(tirx.reinterpret("uint8", v), small))
    return x


def from_common(
    node: Node, x: relax.Expr, to: int, saturate: bool = True, mode: str = "up"
) -> relax.Expr:
    """Numbers as a small type. Integers below a byte wrap around, as in NumPy."""
    dtype = str(x.ty.dtype)
    if to not in FLOATS and to != POWER:
        low, high = INTEGER_RANGE[to]
        mask = high - low

        def wrap(v: Expr) -> Expr:
            whole = v.astype("int32") & tirx.const(mask, "int32")
            over = tirx.Select(whole > high, whole - (mask + 1), whole) if low else whole
            return over.astype(CARRIED[to])

        return _elementwise(node, x, wrap)
    wide = "float64" if dtype in ("float64", "int64", "uint64", "int32", "uint32") else "float32"
    if to == POWER:
        return _elementwise(
            node,
            x,
            lambda v: tirx.reinterpret(
                "float8_e8m0fnu", encode_power(v.astype("float32"), saturate, mode)
            ),
        )
    kind = FLOATS[to]

    def code(v: Expr) -> Expr:
        made = encode(v.astype(wide), kind, saturate)
        if to == TensorProto.FLOAT4E2M1:
            byte = FLOATS[TensorProto.FLOAT8E4M3FN]
            return tirx.reinterpret("float8_e4m3fn", encode(decode(made, kind), byte, True))
        return tirx.reinterpret(numpy_dtype(to), made)

    return _elementwise(node, x, code)


def _elementwise(node: Node, x: relax.Expr, rule: Callable[[Expr], Expr]) -> relax.Expr:
    made = node.bb.call_te(
        lambda t: te.compute(t.shape, lambda *at: rule(t(*at)), name="cast"),
        x,
        primfunc_name_hint="cast",
    )
    return node.emit(made)


@converts("BitCast", since=26)
def bit_cast(node: Node) -> Result:
    """The same bits as another type of the same width."""
    to, given = int(node.attrs["to"]), node.elem_type(0)
    for kind in (given, to):
        if kind in NOT_NUMBERS or kind in CARRIED:
            raise Refused(f"the bits of {TensorProto.DataType.Name(kind)} have no form here")
    dtype = numpy_dtype(to)
    if node.dtype() == dtype:
        return node.inputs[0]
    if "bool" in (dtype, node.dtype()):
        # A bool is a byte that is 0 or 1.
        if dtype == "bool":
            raise Refused("bits as bool: compare with 0 instead")
        byte = relax.op.astype(node.inputs[0], "uint8")
        return byte if dtype == "uint8" else _reinterpret(node, node.emit(byte), dtype)
    return _reinterpret(node, node.inputs[0], dtype)


def _reinterpret(node: Node, x: relax.Expr, dtype: str) -> relax.Expr:
    return _elementwise(node, x, lambda v: tirx.reinterpret(dtype, v))
