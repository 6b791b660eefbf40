"""Convolutions with channels last, which is how CPUs and our kernels like them."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import op_name
from burnish.passes.rewrite import rewritten

TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)


@tvm.transform.module_pass(opt_level=0, name="WidenConv1d")
@dataclass(frozen=True)
class WidenConv1d:
    """Rewrite ``conv1d`` in NCW to ``conv2d`` in NCHW with a height of 1; exact."""

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, _Widen)


@mutator
class _Widen(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if op_name(call) != "relax.nn.conv1d":
            return call
        attrs = call.attrs
        if (str(attrs.data_layout), str(attrs.kernel_layout)) != ("NCW", "OIW"):
            return call
        x, w = (self.builder_.emit(relax.op.expand_dims(arg, 2)) for arg in call.args)
        padding = [int(p) for p in attrs.padding]
        y = relax.op.nn.conv2d(
            x,
            w,
            strides=[1, int(attrs.strides[0])],
            padding=[0, padding[0], 0, padding[-1]],
            dilation=[1, int(attrs.dilation[0])],
            groups=int(attrs.groups),
        )
        return relax.op.squeeze(self.builder_.emit(y), [2])


@tvm.transform.module_pass(opt_level=0, name="PutChannelsLast")
@dataclass(frozen=True)
class PutChannelsLast:
    """Rewrite ``conv2d`` in NCHW to NHWC with weights OHWI, between transposes; exact.

    :class:`~burnish.passes.sink_transposes.SinkTransposes` then moves the transposes together.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, _Last)


@mutator
class _Last(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if op_name(call) != "relax.nn.conv2d":
            return call
        attrs = call.attrs
        if (str(attrs.data_layout), str(attrs.kernel_layout)) != ("NCHW", "OIHW"):
            return call
        x, w = (self.builder_.emit(relax.op.permute_dims(arg, list(TO_LAST))) for arg in call.args)
        y = relax.op.nn.conv2d(
            x,
            w,
            strides=[int(s) for s in attrs.strides],
            padding=[int(p) for p in attrs.padding],
            dilation=[int(d) for d in attrs.dilation],
            groups=int(attrs.groups),
            data_layout="NHWC",
            kernel_layout="OHWI",
        )
        return relax.op.permute_dims(self.builder_.emit(y), list(TO_FIRST))


@tvm.transform.module_pass(opt_level=0, name="FoldPadding")
@dataclass(frozen=True)
class FoldPadding:
    """Give the zeros that ``pad`` puts around a ``conv2d``'s input to the convolution; exact."""

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return relax.transform.DeadCodeElimination()(rewritten(mod, _Absorb))


@mutator
class _Absorb(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if op_name(call) != "relax.nn.conv2d" or not isinstance(call.args[0], relax.Var):
            return call
        pad, attrs = self.lookup_binding(call.args[0]), call.attrs
        if op_name(pad) != "relax.nn.pad" or str(pad.attrs.pad_mode) != "constant":
            return call
        value = pad.attrs.pad_value
        widths = [int(w) for w in pad.attrs.pad_width]
        layout = str(attrs.data_layout)
        around = {axis: widths[2 * i : 2 * i + 2] for i, axis in enumerate(layout)}
        if float(getattr(value, "value", value)) != 0 or any(around["N"]) or any(around["C"]):
            return call
        (top, bottom), (left, right) = around["H"], around["W"]
        own = [int(p) for p in attrs.padding]
        padding = [own[0] + top, own[1] + left, own[2] + bottom, own[3] + right]
        return relax.op.nn.conv2d(
            pad.args[0],
            call.args[1],
            strides=[int(s) for s in attrs.strides],
            padding=padding,
            dilation=[int(d) for d in attrs.dilation],
            groups=int(attrs.groups),
            data_layout=layout,
            kernel_layout=str(attrs.kernel_layout),
        )
