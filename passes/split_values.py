"""Values of a graph on one rank: parts where they are split, made whole or cut where asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
import tvm_ffi
from tvm import relax

from burnish.passes.graph import static_shape
from burnish.passes.params import weight_vars
from burnish.passes.shardings import ALL_GATHER, ALL_REDUCE, Split


@dataclass(frozen=True)
class Value:
    """What stands for a variable of the whole graph on this rank."""

    expr: relax.Expr
    split: Split | None = None


class Parts:
    """Bindings of this rank as they are written to ``block``, and the weights that they read.

    A weight becomes a parameter when it is read, one for each part of it; collectives are numbered
    as they are written, the same on every rank.
    """

    def __init__(self, mod: tvm.IRModule, rank: int) -> None:
        self.rank = rank
        self.weights = {var.name: var for var in weight_vars(mod)}
        self.builder = relax.BlockBuilder()
        self.values: dict[relax.Var, Value] = {}
        self.block: list[relax.Binding] = []
        self.held: dict[tuple[str, Split | None], relax.Var] = {}
        self.whole: dict[relax.Var, relax.Expr] = {}
        self.collectives = 0
        self.name = ""
        self.kind: type[relax.Var] = relax.Var

    def begin(self, kind: type[relax.Var]) -> None:
        """A new block, of variables of a ``kind``."""
        self.block, self.whole, self.kind = [], {}, kind

    def parameters(self) -> dict[tuple[str, Split | None], relax.Var]:
        """Of the weights that were read, by name and part, in the order of the whole graph's."""
        order = {name: at for at, name in enumerate(self.weights)}
        return dict(sorted(self.held.items(), key=lambda item: order[item[0][0]]))

    def is_weight(self, expr: relax.Expr) -> bool:
        if not isinstance(expr, relax.Var) or expr in self.values:
            return False
        return expr.name in self.weights and self.weights[expr.name].same_as(expr)

    def part_of(self, value: tvm.runtime.Tensor, split: Split | None) -> tvm.runtime.Tensor:
        if split is None:
            return value
        start, stop = split.ranges[self.rank]
        places = [slice(None)] * split.axis + [slice(start, stop)]
        return tvm.runtime.tensor(np.ascontiguousarray(value.numpy()[tuple(places)]))

    def emit(self, expr: relax.Expr, kind: type[relax.Var] | None = None) -> relax.Var:
        value = self.builder.normalize(expr)
        var = (kind or self.kind)(self.name, value.ty)
        self.block.append(relax.VarBinding(var, value))
        return var

    def value(self, var: relax.Expr) -> Value:
        if self.is_weight(var):
            return Value(self.held_for(var.name, None))
        return self.values[var] if isinstance(var, relax.Var) else Value(var)

    def split_of(self, expr: relax.Expr) -> Split | None:
        known = isinstance(expr, relax.Var) and expr in self.values
        return self.values[expr].split if known else None

    def held_for(self, name: str, split: Split | None) -> relax.Var:
        """The parameter for a weight, or for this rank's part of it."""
        if (name, split) not in self.held:
            weight = self.weights[name]
            others = sum(key[0] == name for key in self.held)
            ty = weight.ty
            if split is not None:
                shape = static_shape(weight) or ()
                ty = relax.TensorType(split.local(shape, self.rank), ty.dtype)
            own = f"{name}.part{others}" if others else name
            self.held[name, split] = relax.Var(own, ty)
        return self.held[name, split]

    def renamed(self, expr: relax.Expr) -> relax.Expr:
        """An expression of whole values."""
        found = {
            var: self._made_whole(var)
            for var in relax.analysis.free_vars(expr)
            if var in self.values or self.is_weight(var)
        }
        return tvm_ffi.structural_map(expr, [(relax.Var, lambda v: found.get(v, v))])

    def _made_whole(self, var: relax.Var) -> relax.Expr:
        value = self.value(var)
        if value.split is None:
            return value.expr
        if isinstance(var.ty, relax.TupleType):
            # Only splits along another axis give tuples of parts.
            fields = [
                self._gathered(self.emit(relax.TupleGetItem(value.expr, at)), value.split, ty)
                for at, ty in enumerate(var.ty.fields)
            ]
            return relax.Tuple(fields)
        if var not in self.whole:
            self.whole[var] = self._gathered(value.expr, value.split, var.ty)
        return self.whole[var]

    def _gathered(self, expr: relax.Expr, split: Split, ty: relax.TensorType) -> relax.Var:
        numbers = (self.collectives, split.axis, split.ranges[self.rank][0])
        return self._collective(ALL_GATHER, expr, numbers, ty)

    def reduced(self, expr: relax.Expr, ty: relax.TensorType) -> relax.Var:
        return self._collective(ALL_REDUCE, expr, (self.collectives,), ty)

    def _collective(
        self, name: str, expr: relax.Expr, numbers: tuple[int, ...], ty: relax.TensorType
    ) -> relax.Var:
        self.collectives += 1
        arguments = relax.Tuple([expr, *map(relax.prim_value, numbers)])
        own = relax.TensorType(ty.shape, ty.dtype)
        return self.emit(relax.call_dps_packed(name, arguments, own))

    def parts_of(self, var: relax.Expr, split: Split) -> relax.Expr:
        """A value as these parts: weights cut now, what is here cut where it runs."""
        if self.is_weight(var):
            return self.held_for(var.name, split)
        value = self.value(var)
        if value.split == split:
            return value.expr
        start, stop = split.ranges[self.rank]
        if value.split is not None and value.split.covers(split):
            base = value.split.ranges[self.rank][0]
            return self._cut(value.expr, split.axis, start - base, stop - base)
        return self._cut(self.whole_of(var), split.axis, start, stop)

    def whole_of(self, var: relax.Expr) -> relax.Expr:
        return self._made_whole(var) if isinstance(var, relax.Var) else var

    def _cut(self, expr: relax.Expr, axis: int, start: int, stop: int) -> relax.Var:
        cut = relax.op.strided_slice(expr, [axis], [start], [stop], assume_inbound=True)
        return self.emit(cut)


__all__ = ["Parts", "Value"]
