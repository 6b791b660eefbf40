"""Weights as their consumers see them: through transposes, stored plain, narrow or quantized."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import tvm
from tvm import relax

from burnish.passes.consumers import bindings
from burnish.passes.half import HALVES
from burnish.passes.params import get_params, weight_vars
from burnish.passes.qparams import QuantizedWeight
from burnish.passes.quantize import quantized_layout, read_quantized


@dataclass(frozen=True)
class WeightView:
    """A weight named ``name`` as one consumer reads it: transposed by ``axes``.

    Axis ``j`` of the view is axis ``axes[j]`` of the weight, or a new one of size 1 (``None``).
    Exactly one of ``dense`` and ``codes`` is there, in the weight's own layout. ``widened_to``
    is the type that numbers stored in two bytes are converted to where they are read.
    """

    name: str
    axes: tuple[int | None, ...]
    dense: tvm.runtime.Tensor | None = None
    codes: QuantizedWeight | None = None
    widened_to: str | None = None

    @property
    def dtype(self) -> str:
        """What the consumer reads."""
        if self.codes is not None:
            return self.codes.dtype
        return self.widened_to or str(self._dense().dtype)

    @property
    def stored(self) -> str:
        """The type of a plain weight in memory; "codes" of a quantized one."""
        return "codes" if self.codes is not None else str(self._dense().dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        own = self.codes.shape if self.codes is not None else tuple(self._dense().shape)
        return tuple(1 if axis is None else int(own[axis]) for axis in self.axes)

    def transposed(self, axes: tuple[int, ...]) -> WeightView:
        """The view with its axes permuted further."""
        return replace(self, axes=tuple(self.axes[axis] for axis in axes))

    def array(self) -> np.ndarray:
        """The values of a plain weight, transposed as seen, in the type they are stored in."""
        return self._seen(self._dense().numpy())

    def quantized(self) -> QuantizedWeight:
        """The codes of a quantized weight, as seen."""
        if self.codes is None:
            raise ValueError(f"weight {self.name!r} is not quantized")
        return replace(
            self.codes,
            codes=self._seen(self.codes.codes),
            scale=self._seen(self.codes.scale),
            zero_point=self._seen(self.codes.zero_point),
        )

    def widened(self, axes: Iterable[int]) -> WeightView:
        """The view with axes of size 1 inserted at these places of the result."""
        left = list(self.axes)
        for axis in sorted(axes):
            left.insert(axis, None)
        return replace(self, axes=tuple(left))

    def _seen(self, array: np.ndarray) -> np.ndarray:
        array = array.transpose([axis for axis in self.axes if axis is not None])
        new = tuple(place for place, axis in enumerate(self.axes) if axis is None)
        return np.expand_dims(array, new) if new else array

    def _dense(self) -> tvm.runtime.Tensor:
        if self.dense is None:
            raise ValueError(f"weight {self.name!r} is quantized: it has no plain values")
        return self.dense


def weight_views(mod: tvm.IRModule) -> dict[relax.Var, WeightView]:
    """Every variable of ``main`` that is a weight, seen through transposes and widening."""
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
        elif isinstance(value, relax.Call) and value.args and value.args[0] in views:
            seen = _through(value, views[value.args[0]])
            if seen is not None:
                views[binding.var] = seen
    return views


def _through(call: relax.Call, view: WeightView) -> WeightView | None:
    name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
    if name == "relax.permute_dims":
        order = call.attrs.axes
        if order is None:
            return view.transposed(tuple(reversed(range(len(view.axes)))))
        return view.transposed(tuple(int(axis) for axis in order))
    if name == "relax.expand_dims":
        rank = int(call.ty.ndim)
        return view.widened(int(axis) % rank for axis in call.attrs.axis)
    if name == "relax.astype" and str(call.attrs.dtype) == "float32" and view.stored in HALVES:
        return replace(view, widened_to="float32")
    return None
