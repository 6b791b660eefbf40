"""Copies to OpenCL devices that the host does not wait for."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax, tirx

from burnish.passes.graph import op_name
from burnish.passes.params import with_main
from burnish.passes.partition_graph import DEVICE, regions
from burnish.passes.virtual_devices import memory_of
from burnish.targets.hetero import HeteroTarget

MOVE, BEGIN = "burnish.opencl.move", "burnish.opencl.begin"
"""Functions of the runtime: a tensor on another device (type, number); begin what is queued."""
_TYPES = {"cpu": 1, "opencl": 4}
"""``DLDeviceType``."""


@tvm.transform.module_pass(opt_level=0, name="SendEarly")
@dataclass(frozen=True)
class SendEarly:
    """``main`` waits for an OpenCL device only where the host reads what it made.

    1. A copy between the host and OpenCL becomes :data:`MOVE`: one to the device is in its queue
       when it returns, and the tensor is held until the device has read it. TVM's own waits for
       all that the device was given before. What is moved is an input of the model or a region's
       result, whose memory nothing else uses while it is held.
    2. After a region of such a device it is told to :data:`BEGIN`.
    """

    target: HeteroTarget

    def transform_module(self, mod: tvm.IRModule, _ctx: object) -> tvm.IRModule:
        cut, main = regions(mod), mod["main"]
        made: list[relax.Binding] = []
        for block in main.body.blocks:
            for binding in block.bindings:
                made.append(_moved(binding))
                function = getattr(binding.value, "op", None)
                if isinstance(function, tvm.ir.GlobalVar) and function in cut:
                    place = self.target.place(str(cut[function].attrs[DEVICE]))
                    if place.target.kind == "opencl":
                        made.append(_begin(place.index))
        body = relax.SeqExpr([relax.BindingBlock(made)], main.body.body)
        new = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
        return relax.transform.Normalize()(with_main(mod, new))


def _moved(binding: relax.Binding) -> relax.Binding:
    if op_name(binding.value) != "relax.to_vdevice":
        return binding
    value = binding.value
    ends = [str(memory_of(one.ty)).partition(":") for one in (value.args[0], value)]
    if {kind for kind, _, _ in ends} != {"cpu", "opencl"}:
        return binding
    kind, _, number = ends[1]
    where = [tirx.IntImm("int64", _TYPES[kind]), tirx.IntImm("int64", int(number))]
    call = relax.op.call_pure_packed(MOVE, value.args[0], *where, ty_args=binding.var.ty)
    return relax.VarBinding(binding.var, call)


def _begin(index: int) -> relax.Binding:
    call = relax.op.call_pure_packed(BEGIN, tirx.IntImm("int64", index), ty_args=relax.ObjectType())
    return relax.VarBinding(relax.Var("begun", relax.ObjectType()), call)


__all__ = ["BEGIN", "MOVE", "SendEarly"]
