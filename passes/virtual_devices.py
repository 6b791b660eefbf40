"""Tensors on virtual devices: types that say where, and moves from one memory to another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.global_info import VDevice

from burnish.targets.hetero import HeteroTarget

INFO = "vdevice"
"""Where a module keeps its virtual devices, in the order in which the machine has them."""


def virtual_devices(target: HeteroTarget) -> dict[str, VDevice]:
    """Memory -> virtual device, the host's first."""
    return {one.memory: VDevice(one.target.tvm(), one.index, "global") for one in target.memories}


def memory_of(ty: tvm.ir.Type) -> str | None:
    """The memory of a tensor, or of the first one of a tuple; ``None`` where the type says none."""
    if isinstance(ty, relax.TupleType):
        return next((found for found in map(memory_of, ty.fields) if found), None)
    device = getattr(ty, "vdevice", None)
    if device is None:
        return None
    kind = str(device.target.kind.name)
    return f"{'cpu' if kind == 'llvm' else kind}:{int(device.vdevice_id)}"


def on_device(item: Any, device: VDevice | None) -> Any:
    """A function, expression or type with all its tensors on ``device``; ``None``: on no one."""

    def moved(ty: relax.TensorType) -> relax.TensorType:
        if ty.vdevice is None and device is None:
            return ty
        if ty.vdevice is not None and device is not None and ty.vdevice.same_as(device):
            return ty
        if ty.shape is not None:
            return relax.TensorType(ty.shape, ty.dtype, device, span=ty.span)
        return relax.TensorType(None, ty.dtype, device, ty.ndim, ty.span)

    return tvm_ffi.structural_map(item, [(relax.TensorType, moved)])


def with_devices(mod: tvm.IRModule, devices: Iterable[VDevice]) -> tvm.IRModule:
    """The module with these virtual devices; the argument is untouched."""
    infos = {**dict(mod.global_infos.items()), INFO: list(devices)}
    attrs = dict(mod.attrs.items()) if mod.attrs is not None else None
    return tvm.IRModule(dict(mod.functions.items()), attrs=attrs, global_infos=infos)


def module_devices(mod: tvm.IRModule) -> dict[str, VDevice]:
    """Memory -> virtual device of a module that has them."""
    found: Mapping[str, Any] = dict(mod.global_infos.items())
    listed = found.get(INFO, ())
    return {
        f"{'cpu' if one.target.kind.name == 'llvm' else one.target.kind.name}:"
        f"{int(one.vdevice_id)}": one
        for one in listed
    }
