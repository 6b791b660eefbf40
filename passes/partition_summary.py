"""What a cut graph is made of, as plain data: its regions, and what moves between memories."""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from burnish.passes.graph import op_name, static_shape
from burnish.passes.params import get_params, weight_vars
from burnish.passes.partition_graph import DEVICE, INPUTS, regions
from burnish.passes.place import operator
from burnish.passes.virtual_devices import memory_of
from burnish.targets.hetero import HOST, RPC


def partition_summary(mod: tvm.IRModule) -> dict[str, Any]:
    """Regions in the order in which they run, moves in theirs, and bytes of weights by memory.

    ``{"regions": [{"name", "device", "operators": {name: calls}}], "transfers": [{"value", "from",
    "to", "bytes"}], "weights": {memory: bytes}}``; bytes are None where a size is open. Of another
    machine's device, the device stands for its memory.
    """
    weights: dict[str, int] = {}
    values = get_params(mod)
    for var in weight_vars(mod):
        if var.name in values:
            memory = memory_of(var.ty) or ""
            weights[memory] = weights.get(memory, 0) + values[var.name].numpy().nbytes
    sent: list[dict[str, Any]] = []
    for var, func in regions(mod).items():
        device = str(func.attrs[DEVICE])
        if device.startswith(RPC):
            count = int(func.attrs[INPUTS])
            sent += [_sent(one, HOST, device) for one in func.params[:count]]
            held = sum(_bytes(one) or 0 for one in func.params[count:])
            weights[device] = weights.get(device, 0) + held
            weights[HOST] = weights.get(HOST, 0) - held
            sent += [_sent(one, device, HOST) for one in _results(func, var)]
    return {
        "regions": [
            {"name": var.name_hint, "device": str(func.attrs[DEVICE]), "operators": _counts(func)}
            for var, func in regions(mod).items()
        ],
        "transfers": [
            {
                "value": str(binding.value.args[0].name),
                "from": memory_of(binding.value.args[0].ty),
                "to": memory_of(binding.var.ty),
                "bytes": _bytes(binding.var),
            }
            for block in mod["main"].body.blocks
            for binding in block.bindings
            if op_name(binding.value) == "relax.to_vdevice"
        ]
        + sent,
        "weights": weights,
    }


def _sent(var: relax.Var, source: str, target: str) -> dict[str, Any]:
    return {"value": str(var.name), "from": source, "to": target, "bytes": _bytes(var)}


def _results(func: relax.Function, region: tvm.ir.GlobalVar) -> list[relax.Var]:
    """What a region returns, as variables."""
    result = func.body.body
    if isinstance(result, relax.Tuple):
        return list(result.fields)
    if isinstance(result.ty, relax.TupleType):
        return [relax.Var(f"{region.name_hint}.{n}", ty) for n, ty in enumerate(result.ty.fields)]
    return [result]


def _counts(func: relax.Function) -> dict[str, int]:
    found: dict[str, int] = {}
    for block in func.body.blocks:
        for binding in block.bindings:
            if isinstance(binding.value, relax.Call | relax.If):
                name = operator(binding.value).removeprefix("relax.")
                found[name] = found.get(name, 0) + 1
    return found


def _bytes(var: relax.Var) -> int | None:
    shape = static_shape(var)
    if shape is None:
        return None
    return math.prod(shape) * tvm.DataType(str(var.ty.dtype)).itemsize
