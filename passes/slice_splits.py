"""Take the parts of a split apart, so that each is computed where it is read."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import op_name
from burnish.passes.rewrite import rewritten


@tvm.transform.module_pass(opt_level=0, name="SliceSplits")
@dataclass(frozen=True)
class SliceSplits:
    """Rewrite ``split(x)[i]`` to a slice of ``x``; exact.

    A split is one kernel with several results, which no reader can be fused with; a slice is.
    Axes of open size, and splits whose tuple is used as a whole, are left alone.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return relax.transform.DeadCodeElimination()(rewritten(mod, _Slicer))


@mutator
class _Slicer(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)

    def visit_tuple_getitem_(self, item: relax.TupleGetItem) -> relax.Expr:
        item = super().visit_tuple_getitem_(item)
        source = item.tuple_value
        split = self.lookup_binding(source) if isinstance(source, relax.Var) else None
        if split is None or op_name(split) != "relax.split":
            return item
        x, axis = split.args[0], int(split.attrs.axis)
        axis += x.ty.ndim if axis < 0 else 0
        extent = x.ty.shape[axis]
        edges = _edges(split.attrs.indices_or_sections, extent)
        if edges is None:
            return item
        begin, end = edges[item.index], edges[item.index + 1]
        return relax.op.strided_slice(x, [axis], [begin], [end])


def _edges(parts: object, extent: object) -> list[int] | None:
    """Where each part begins, and the end of the last; ``None`` where that is not known."""
    if not isinstance(extent, tirx.IntImm):
        return None
    size = int(extent)
    if isinstance(parts, int | tirx.IntImm):
        count = int(parts)
        each = -(-size // count)
        return [min(i * each, size) for i in range(count + 1)]
    inside = list(parts)  # type: ignore[call-overload]
    if not all(isinstance(index, int | tirx.IntImm) for index in inside):
        return None
    return [0, *(min(int(index), size) for index in inside), size]
