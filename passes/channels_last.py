"""Convolutions with channels last, which is how CPUs and our kernels like them."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import op_name
from burnish.passes.packed import MOST_MERGED
from burnish.passes.rewrite import rewritten
from burnish.passes.transposed import Transposed
from burnish.passes.weight_views import weight_views

TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)


@tvm.transform.module_pass(opt_level=0, name="WidenConv1d")
@dataclass(frozen=True)
class WidenConv1d:
    """Rewrite ``conv1d`` and ``conv1d_transpose`` in NCW to those in NCHW, of height 1; exact."""

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, _Widen)


@mutator
class _Widen(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        name, attrs = op_name(call), call.attrs
        if name not in ("relax.nn.conv1d", "relax.nn.conv1d_transpose"):
            return call
        transposed = name == "relax.nn.conv1d_transpose"
        layouts = ("NCW", "IOW" if transposed else "OIW")
        if (str(attrs.data_layout), str(attrs.kernel_layout)) != layouts:
            return call
        x, w = (self.builder_.emit(relax.op.expand_dims(arg, 2)) for arg in call.args)
        padding = [int(p) for p in attrs.padding]
        shape = {
            "strides": [1, int(attrs.strides[0])],
            "padding": [0, padding[0], 0, padding[-1]],
            "dilation": [1, int(attrs.dilation[0])],
            "groups": int(attrs.groups),
        }
        if transposed:
            extra = [0, int(attrs.output_padding[0])]
            y = relax.op.nn.conv2d_transpose(x, w, output_padding=extra, **shape)
        else:
            y = relax.op.nn.conv2d(x, w, **shape)
        return relax.op.squeeze(self.builder_.emit(y), [2])


@tvm.transform.module_pass(opt_level=0, name="PutChannelsLast")
@dataclass(frozen=True)
class PutChannelsLast:
    """Rewrite ``conv2d`` in NCHW to NHWC with weights OHWI, between transposes; exact.

    ``conv2d_transpose`` too with ``transposed``, weights left as they are, where
    :class:`~burnish.passes.pack_weights.PackWeights` will take it.
    :class:`~burnish.passes.sink_transposes.SinkTransposes` then moves the transposes together.
    """

    transposed: bool = True

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, lambda given: _Last(given, self.transposed))


@mutator
class _Last(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, transposed: bool) -> None:
        super().__init__(mod)
        self.views = weight_views(mod)
        self.takes_transposed = transposed

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        transposed = (
            self.takes_transposed
            and op_name(call) == "relax.nn.conv2d_transpose"
            and self._packable(call)
        )
        call = super().visit_call_(call)
        if transposed:
            return self._transposed(call)
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

    def _packable(self, call: relax.Call) -> bool:
        view = self.views.get(call.args[1]) if isinstance(call.args[1], relax.Var) else None
        attrs = call.attrs
        if view is None or view.dense is None or str(view.dense.dtype) != "float32":
            return False
        if (str(attrs.data_layout), str(attrs.kernel_layout)) != ("NCHW", "IOHW"):
            return False
        if str(call.args[0].ty.dtype) != "float32":
            return False
        groups = int(attrs.groups)
        shape = Transposed.of(attrs, (view.shape[2], view.shape[3]))
        return shape is not None and (groups == 1 or groups <= MOST_MERGED)

    def _transposed(self, call: relax.Call) -> relax.Expr:
        attrs = call.attrs
        x = self.builder_.emit(relax.op.permute_dims(call.args[0], list(TO_LAST)))
        y = relax.op.nn.conv2d_transpose(
            x,
            call.args[1],
            strides=[int(s) for s in attrs.strides],
            padding=[int(p) for p in attrs.padding],
            output_padding=[int(p) for p in attrs.output_padding],
            dilation=[int(d) for d in attrs.dilation],
            groups=int(attrs.groups),
            data_layout="NHWC",
            kernel_layout="IOHW",
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
