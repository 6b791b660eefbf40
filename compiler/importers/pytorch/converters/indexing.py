"""Indexing by tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from torch import fx
from tvm import relax, tirx

from burnish.compiler.importers.pytorch.arguments import arguments

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.converters.kinds import Converter
    from burnish.compiler.importers.pytorch.translator import Translator

op = relax.op
_DEPTH = 8
_KEEPS_SIGN = {
    *("reshape", "expand_dims", "squeeze", "permute_dims", "broadcast_to", "astype"),
    *("strided_slice", "take", "flatten"),
}
_ADDS = {"add", "multiply", "maximum", "floor_divide"}
_COUNTS = ("argmax", "argmin", "argsort", "shape_to_tensor")


def index(node: fx.Node, t: Translator) -> relax.Expr:
    """``x[i, :, j]``: one ``take`` along the indexed axes as one, as NumPy's advanced indexing.

    Indices broadcast together. Their sizes come where the indexed axes are, if those are
    neighbours, else first. Negative ones count from the end; one out of range reads the nearest
    row, never other memory.
    """
    a = arguments(node, t)
    x, given = a["self"], list(a["indices"])
    axes = [axis for axis, value in enumerate(given) if value is not None]
    indices = [given[axis] for axis in axes]
    if any(t.dtype_of(value) in ("bool", "uint8") for value in indices):
        raise ValueError(
            "an index of booleans gives a result of a size that depends on data: "
            "use torch.where, or multiply by the mask"
        )
    if axes != list(range(axes[0], axes[0] + len(axes))):
        rest = [axis for axis in range(x.ty.ndim) if axis not in axes]
        x = t.emit(op.permute_dims(x, [*axes, *rest]))
        axes = list(range(len(axes)))
    first, sizes = axes[0], [x.ty.shape[axis] for axis in axes]
    place: relax.Expr | None = None
    for value, size in zip(indices, sizes, strict=True):
        value = _from_start(t, _int64(t, value), size)
        if place is not None:
            value = t.emit(op.add(t.emit(op.multiply(place, _number(t, size))), value))
        place = value
    if len(axes) > 1:
        total = sizes[0]
        for size in sizes[1:]:
            total = total * size
        shape = list(x.ty.shape)
        x = t.emit(op.reshape(x, [*shape[:first], total, *shape[first + len(axes) :]]))
    return op.take(x, place, axis=first, mode="clip")


def _int64(t: Translator, value: relax.Expr) -> relax.Expr:
    return value if t.dtype_of(value) == "int64" else t.emit(op.astype(value, "int64"))


def _number(t: Translator, size: Any) -> relax.Expr:
    """A size as a scalar tensor."""
    if isinstance(size, (int, tirx.IntImm)):
        return relax.const(int(size), "int64")
    shape = t.emit(op.shape_to_tensor(relax.ShapeExpr([size])))
    return t.emit(op.reshape(shape, []))


def _from_start(t: Translator, value: relax.Expr, size: Any) -> relax.Expr:
    """Indices of which negative ones count from the end, as counted from the start."""
    if isinstance(value, tvm.ir.GenericConst):
        array = value.value.numpy()
        if array.size == 0 or array.min() >= 0:
            return value
        if isinstance(size, (int, tirx.IntImm)):
            return relax.const(np.where(array < 0, array + int(size), array), "int64")
    if not_negative(t, value):
        return value
    wrapped = t.emit(op.add(value, _number(t, size)))
    return t.emit(op.where(t.emit(op.less(value, relax.const(0, "int64"))), wrapped, value))


def not_negative(t: Translator, value: Any, depth: int = _DEPTH) -> bool:
    """Whether integers are known to be 0 or more, from how they are made."""
    if isinstance(value, tvm.ir.GenericConst):
        array = value.value.numpy()
        return array.size == 0 or bool(array.min() >= 0)
    made = t.block_builder.lookup_binding(value) if isinstance(value, relax.Var) else value
    if depth == 0 or not isinstance(made, relax.Call) or not isinstance(made.op, tvm.ir.Op):
        return False
    name = made.op.name.removeprefix("relax.")
    if name == "arange":
        start = made.args[0]
        number = getattr(start, "value", start)
        return isinstance(number, (int, tirx.IntImm)) and int(number) >= 0
    if name in _COUNTS:
        return True
    parts = made.args[: 2 if name in _ADDS else 1]
    known = name in _KEEPS_SIGN or name in _ADDS
    return known and all(not_negative(t, part, depth - 1) for part in parts)


def index_select(node: fx.Node, t: Translator) -> relax.Expr:
    """Rows of an axis; an index out of range reads the nearest row, never other memory."""
    a = arguments(node, t)
    return op.take(a["self"], a["index"], axis=a["dim"] % max(a["self"].ty.ndim, 1), mode="clip")


INDEXING: dict[str, Converter] = {
    "index.Tensor": index,
    "index_select.default": index_select,
}
