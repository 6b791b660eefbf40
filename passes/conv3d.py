"""Three-dimensional convolution as one over the frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from burnish.passes.graph import op_name
from burnish.passes.rewrite import rewritten

_CHANNELS_LAST = (0, 2, 3, 4, 1)
_CHANNELS_FIRST = (0, 4, 1, 2, 3)


@tvm.transform.module_pass(opt_level=0, name="FlattenConv3d")
@dataclass(frozen=True)
class FlattenConv3d:
    """Rewrite ``conv3d`` in one group to ``conv2d`` over the frames of all batches; exact.

    A frame of the output reads KD frames; they are put side by side as channels, so that
    ``x [N, C, D, H, W]`` becomes ``[N * OD, H, W, KD * C]`` and the weight ``[O, KH, KW, KD * C]``.
    That copies the input KD times, and the products, of which there are KH * KW * O for each
    copied number, run as those of any convolution.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        return rewritten(mod, _Flatten)


@mutator
class _Flatten(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        size = call.ty
        call = super().visit_call_(call)
        if op_name(call) != "relax.nn.conv3d":
            return call
        attrs = call.attrs
        x, w = call.args
        layouts = (str(attrs.data_layout), str(attrs.kernel_layout))
        depth, taps = x.ty.shape[2], w.ty.shape[2]
        if layouts != ("NCDHW", "OIDHW") or int(attrs.groups) != 1:
            return call
        if not isinstance(depth, tvm.tirx.IntImm) or not all(
            isinstance(n, tvm.tirx.IntImm) for n in w.ty.shape
        ):
            return call
        front, top, left, back, bottom, right = (int(p) for p in attrs.padding)
        strides, dilation = [int(s) for s in attrs.strides], [int(d) for d in attrs.dilation]
        reach = dilation[0] * (int(taps) - 1) + 1
        frames = (int(depth) + front + back - reach) // strides[0] + 1
        return self._flattened(
            call,
            list(size.shape)[3:],
            frames,
            (front, back),
            (top, left, bottom, right),
            strides,
            dilation,
        )

    def _flattened(
        self,
        call: relax.Call,
        size: list[tvm.ir.Expr],
        frames: int,
        around: tuple[int, int],
        padding: tuple[int, int, int, int],
        strides: list[int],
        dilation: list[int],
    ) -> relax.Expr:
        op, emit = relax.op, self.builder_.emit
        batch, channels, _depth, height, width = call.args[0].ty.shape
        out, _channels, taps, *kernel = (int(n) for n in call.args[1].ty.shape)
        x = emit(op.permute_dims(call.args[0], list(_CHANNELS_LAST)))
        if any(around):
            x = emit(op.nn.pad(x, [0, 0, *around, 0, 0, 0, 0, 0, 0]))
        last = strides[0] * (frames - 1) + 1
        parts = [
            emit(
                op.strided_slice(x, [1], [k * dilation[0]], [k * dilation[0] + last], [strides[0]])
            )
            for k in range(taps)
        ]
        if taps > 1:
            x = emit(op.concat(parts, 4))
        else:
            x = parts[0]
        depth = channels * taps
        x = emit(op.reshape(x, relax.ShapeExpr([batch * frames, height, width, depth])))
        w = emit(op.permute_dims(call.args[1], [0, 3, 4, 2, 1]))
        w = emit(op.reshape(w, [out, *kernel, int(channels) * taps]))
        y = emit(
            op.nn.conv2d(
                x,
                w,
                strides=strides[1:],
                padding=list(padding),
                dilation=dilation[1:],
                data_layout="NHWC",
                kernel_layout="OHWI",
            )
        )
        y = emit(op.reshape(y, relax.ShapeExpr([batch, frames, *size, out])))
        return op.permute_dims(y, list(_CHANNELS_FIRST))
