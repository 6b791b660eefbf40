"""What mixtures of experts are made of: counts, and products with a weight by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx
from tvm import relax, te, tirx

from burnish.compiler.importers.pytorch.arguments import arguments

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.converters.kinds import Converter
    from burnish.compiler.importers.pytorch.translator import Translator

op = relax.op


def histc(node: fx.Node, t: Translator) -> relax.Expr:
    """How many elements lie in each of ``bins`` equal parts of ``[min, max]``; others in none."""
    a = arguments(node, t)
    bins, low, high = int(a["bins"]), float(a["min"]), float(a["max"])
    if low >= high:
        raise ValueError("histc without limits counts between those of the data: give min and max")
    dtype = t.result_dtype(node)
    x = t.emit(op.reshape(a["self"], [-1, 1]))
    place = t.emit(op.subtract(x, relax.const(low, dtype)))
    place = t.emit(op.floor(t.emit(op.multiply(place, relax.const(bins / (high - low), dtype)))))
    # The upper limit itself belongs to the last part.
    last = t.emit(op.equal(x, relax.const(high, dtype)))
    place = t.emit(op.where(last, relax.const(bins - 1, dtype), place))
    parts = t.emit(op.astype(t.emit(op.arange(bins)), dtype))
    same = t.emit(op.astype(t.emit(op.equal(place, parts)), dtype))
    return op.sum(same, axis=0)


def grouped_matmul(node: fx.Node, t: Translator) -> relax.Expr:
    """``x [S, K], w [E, K, N], ends [E] -> [S, N]``: rows up to ``ends[e]`` times ``w[e]``."""
    values = list(arguments(node, t).values())
    x, weights, ends = values[:3]
    if ends is None or x.ty.ndim != 2 or weights.ty.ndim != 3:
        raise ValueError("grouped products are imported for x [S, K], w [E, K, N] and offsets only")
    if any(value is not None for value in values[3:4]):
        raise ValueError("grouped products with a bias: add it to the result")
    rows = t.emit(op.arange(relax.prim_value(x.ty.shape[0])))
    after = t.emit(
        op.greater_equal(t.emit(op.expand_dims(rows, 1)), t.emit(op.astype(ends, "int64")))
    )
    expert = t.emit(op.sum(t.emit(op.astype(after, "int32")), axis=1))
    dtype = t.result_dtype(node)
    total = "float32" if dtype in ("float16", "bfloat16") else dtype

    def product(x: te.Tensor, w: te.Tensor, expert: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, x.shape[1]), "k")

        def element(row: tirx.Var, column: tirx.Var) -> tirx.Expr:
            chosen = tirx.min(expert[row], w.shape[0] - 1)
            return te.sum(x[row, k].astype(total) * w[chosen, k, column].astype(total), axis=k)

        out = te.compute((x.shape[0], w.shape[2]), element, name="grouped")
        if total == dtype:
            return out
        return te.compute(out.shape, lambda *at: out(*at).astype(dtype), name="narrowed")

    return t.block_builder.call_te(product, x, weights, expert, primfunc_name_hint="grouped_matmul")


EXPERTS: dict[str, Converter] = {
    "_grouped_mm.default": grouped_matmul,
    "histc.default": histc,
    "transformers::grouped_mm_fallback": grouped_matmul,
}
