"""Tensors made from a shape and a value, brought to a shape, or repeated. Sizes may be open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx
from tvm import relax, tirx, topi

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


def padded(node: fx.Node, t: Translator) -> relax.Expr:
    """A value before and after what an axis holds, by widths that may be open; less is cut off."""
    a = arguments(node, t)
    x, widths = a["self"], list(a["pad"])
    pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    known = all(isinstance(n, int) for n in widths)
    pairs = [(0, 0)] * (x.ty.ndim - len(pairs)) + pairs
    if known and min(widths, default=0) < 0:
        return t._constant_pad_nd(node)
    before, after = ([pair[i] for pair in pairs] for i in range(2))
    if known:
        flat = [n for pair in pairs for n in pair]
        return op.nn.pad(x, flat, "constant", float(a["value"]))
    value = tirx.const(a["value"], t.dtype_of(x))
    return t.block_builder.call_te(
        lambda x: topi.nn.pad(x, _sizes(before), _sizes(after), value), x, primfunc_name_hint="pad"
    )


def _sizes(values: list[Any]) -> list[Any]:
    return [tirx.IntImm("int64", n) if isinstance(n, int) else n for n in values]


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


def arange(node: fx.Node, t: Translator) -> relax.Expr:
    """``start + i * step``, as many as torch counted.

    TVM counts anew, in floats for a step of 1.0, and too many integers that go down. Whole
    floats are taken for the integers that they are.
    """
    a = arguments(node, t)
    dtype, (count,) = t.result_dtype(node), t.result_shape(node)
    parts = [_whole(a.get(name, default)) for name, default in (("start", 0), ("step", 1))]
    (start, step), end = parts, a["end"]
    if isinstance(count, int) and isinstance(step, int | float) and step > 0:
        return op.arange(start, _whole(end), step, dtype)
    if "int" not in dtype or any(isinstance(part, float) for part in parts):
        made = t.emit(op.astype(t.emit(op.arange(relax.prim_value(count))), dtype))
    else:
        made = t.emit(op.arange(relax.prim_value(count), dtype=dtype))
    if not _is(step, 1):
        made = t.emit(op.multiply(made, t._operand(step, dtype)))
    return made if _is(start, 0) else op.add(made, t._operand(start, dtype))


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int) and value == number


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
    **dict.fromkeys(("arange.default", "arange.start", "arange.start_step"), arange),
    **dict.fromkeys(("view.default", "reshape.default", "_unsafe_view.default"), reshaped),
    "constant_pad_nd.default": padded,
    "repeat.default": repeat,
    "scalar_tensor.default": scalar,
}
