"""Convolutions with channels last, which is how CPUs and our kernels like them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.rewrite import rewritten


@tvm.transform.module_pass(opt_level=0, name="WidenConv1d")
@dataclass(frozen=True)
class WidenConv1d:
    """Rewrite ``conv1d`` in NCW to ``conv2d`` in NCHW with a height of 1; exact."""

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, _Widen)


@mutator
class _Widen(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:  # type: ignore[override]
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op) or call.op.name != "relax.nn.conv1d":
            return call
        attrs = call.attrs
        if (str(attrs.data_layout), str(attrs.kernel_layout)) != ("NCW", "OIW"):
            return call
        x, w = (self._emit(relax.op.expand_dims(arg, 2)) for arg in call.args)
        left, right = (int(p) for p in _pair(attrs.padding))
        y = self._emit(
            relax.op.nn.conv2d(
                x,
                w,
                strides=[1, int(attrs.strides[0])],
                padding=[0, left, 0, right],
                dilation=[1, int(attrs.dilation[0])],
                groups=int(attrs.groups),
            )
        )
        return relax.op.squeeze(y, [2])

    def _emit(self, expr: relax.Expr) -> relax.Var:
        return self.builder_.emit(expr)


def _pair(padding: Any) -> tuple[Any, Any]:
    return (padding[0], padding[1]) if len(padding) == 2 else (padding[0], padding[0])


@tvm.transform.module_pass(opt_level=0, name="SplitClip")
@dataclass(frozen=True)
class SplitClip:
    """Rewrite ``clip`` to ``maximum`` and ``minimum``, which layout conversion knows; exact."""

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, _Split)


@mutator
class _Split(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:  # type: ignore[override]
        call = super().visit_call_(call)
        if not isinstance(call.op, tvm.ir.Op) or call.op.name != "relax.clip":
            return call
        x, low, high = call.args
        dtype = str(x.ty.dtype)
        bounds = [_number(bound) for bound in (low, high)]
        if any(bound is None for bound in bounds) or not dtype.startswith("float"):
            return call
        raised = self.builder_.emit(relax.op.maximum(x, relax.const(bounds[0], dtype)))
        return relax.op.minimum(raised, relax.const(bounds[1], dtype))


def _number(value: Any) -> float | None:
    value = getattr(value, "value", value)
    return float(value.value) if hasattr(value, "value") else _plain(value)


def _plain(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def channels_last() -> tvm.ir.transform.Pass:
    """All ``conv2d`` in NHWC with weights OHWI; transposes only where a layout must be kept."""
    return relax.transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "OHWI"]})
