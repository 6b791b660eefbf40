"""Tensors made from a shape and a value, brought to a shape, or repeated. Sizes may be open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx
from tvm import relax

from burnish.compiler.importers.pytorch.arguments import arguments

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.converters.kinds import Converter
    from burnish.compiler.importers.pytorch.translator import Translator

op = relax.op


def filled_with(value: float) -> Converter:
    """All elements the same; memory that torch leaves as it is has zeros here."""

    def convert(node: fx.Node, t: Translator) -> relax.Expr:
        return _full(node, t, value)

    return convert


def full(node: fx.Node, t: Translator) -> relax.Expr:
    return _full(node, t, arguments(node, t)["fill_value"])


def _full(node: fx.Node, t: Translator, value: Any) -> relax.Expr:
    dtype = t.result_dtype(node)
    return op.full(relax.ShapeExpr(t.result_shape(node)), t._operand(value, dtype), dtype)


def scalar(node: fx.Node, t: Translator) -> relax.Expr:
    """A number as a tensor of no dimensions."""
    return t._operand(arguments(node, t)["s"], t.result_dtype(node))


def reshaped(node: fx.Node, t: Translator) -> relax.Expr:
    """In the shape that torch recorded."""
    x, shape = arguments(node, t)["self"], t.result_shape(node)
    return x if t.symbols.same_shape(x, shape) else op.reshape(x, shape)


def expanded(node: fx.Node, t: Translator) -> relax.Expr:
    """Broadcast to the shape that torch recorded."""
    x, shape = arguments(node, t)["self"], t.result_shape(node)
    return x if t.symbols.same_shape(x, shape) else op.broadcast_to(x, shape)


def repeat(node: fx.Node, t: Translator) -> relax.Expr:
    """``x [.., n] -> [.., times * n]``, by a broadcast of axes of one in between."""
    a = arguments(node, t)
    x, times = a["self"], list(a["repeats"])
    if all(isinstance(n, int) for n in times):
        return op.tile(x, times)
    shape = [1] * (len(times) - x.ty.ndim) + list(x.ty.shape)
    x = t.emit(op.reshape(x, [size for n in shape for size in (1, n)]))
    pairs = [size for pair in zip(times, shape, strict=True) for size in pair]
    return op.reshape(t.emit(op.broadcast_to(x, pairs)), t.result_shape(node))


CREATION: dict[str, Converter] = {
    **dict.fromkeys(
        (
            *("empty.default", "empty.memory_format", "empty_permuted.default"),
            *("empty_like.default", "empty_strided.default", "new_empty.default"),
            *("zeros.default", "zeros_like.default", "new_zeros.default"),
        ),
        filled_with(0),
    ),
    **dict.fromkeys(("ones.default", "ones_like.default", "new_ones.default"), filled_with(1)),
    **dict.fromkeys(("full.default", "full_like.default", "new_full.default"), full),
    "expand.default": expanded,
    **dict.fromkeys(("view.default", "reshape.default", "_unsafe_view.default"), reshaped),
    "repeat.default": repeat,
    "scalar_tensor.default": scalar,
}
