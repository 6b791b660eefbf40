"""Weights as their consumers see them: through transposes, stored plain or quantized."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax

from burnish.passes.consumers import bindings
from burnish.passes.params import get_params, weight_vars
from burnish.passes.qparams import QuantizedWeight
from burnish.passes.quantize import quantized_layout, read_quantized


@dataclass(frozen=True)
class WeightView:
    """A weight named ``name`` as one consumer reads it: transposed by ``axes``.

    Exactly one of ``dense`` and ``codes`` is there, in the weight's own layout.
    """

    name: str
    axes: tuple[int, ...]
    dense: tvm.runtime.Tensor | None = None
    codes: QuantizedWeight | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        own = self.codes.shape if self.codes is not None else tuple(self._dense().shape)
        return tuple(int(own[axis]) for axis in self.axes)

    def transposed(self, axes: tuple[int, ...]) -> WeightView:
        """The view with its axes permuted further."""
        return replace(self, axes=tuple(self.axes[axis] for axis in axes))

    def array(self) -> np.ndarray:
        """The values of a plain weight, as seen."""
        return self._dense().numpy().transpose(self.axes)

    def quantized(self) -> QuantizedWeight:
        """The codes of a quantized weight, as seen."""
        if self.codes is None:
            raise ValueError(f"weight {self.name!r} is not quantized")
        return replace(
            self.codes,
            codes=self.codes.codes.transpose(self.axes),
            scale=self.codes.scale.transpose(self.axes),
            zero_point=self.codes.zero_point.transpose(self.axes),
        )

    def _dense(self) -> tvm.runtime.Tensor:
        if self.dense is None:
            raise ValueError(f"weight {self.name!r} is quantized: it has no plain values")
        return self.dense


def weight_views(mod: tvm.IRModule) -> dict[relax.Var, WeightView]:
    """Every variable of ``main`` that is a weight, seen through transposes."""
    values = get_params(mod)
    views: dict[relax.Var, WeightView] = {}
    for var in weight_vars(mod):
        if var.name in values:
            rank = len(values[var.name].shape)
            views[var] = WeightView(var.name, tuple(range(rank)), dense=values[var.name])
    for binding in bindings(mod["main"]):
        value = binding.value
        if isinstance(value, relax.Var) and value in views:
            views[binding.var] = views[value]
        elif quantized_layout(mod, value) is not None:
            codes = read_quantized(mod, value)
            views[binding.var] = WeightView(codes.name, tuple(range(len(codes.shape))), codes=codes)
        elif (
            isinstance(value, relax.Call)
            and isinstance(value.op, tvm.ir.Op)
            and value.op.name == "relax.permute_dims"
            and value.args[0] in views
        ):
            view = views[value.args[0]]
            order = value.attrs.axes
            axes = (
                tuple(int(axis) for axis in order)
                if order is not None
                else tuple(reversed(range(len(view.axes))))
            )
            views[binding.var] = view.transposed(axes)
    return views
