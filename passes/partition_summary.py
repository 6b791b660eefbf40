"""What a cut graph is made of, as plain data: its regions, and what moves between memories."""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from burnish.passes.graph import op_name, static_shape
from burnish.passes.params import get_params, weight_vars
from burnish.passes.partition_graph import DEVICE, regions
from burnish.passes.place import operator
from burnish.passes.virtual_devices import memory_of


def partition_summary(mod: tvm.IRModule) -> dict[str, Any]:
    """Regions in the order in which they run, moves in theirs, and bytes of weights by memory.

    ``{"regions": [{"name", "device", "operators": {name: calls}}], "transfers": [{"value", "from",
    "to", "bytes"}], "weights": {memory: bytes}}``; bytes are None where a size is open.
    """
    weights: dict[str, int] = {}
    values = get_params(mod)
    for var in weight_vars(mod):
        if var.name in values:
            memory = memory_of(var.ty) or ""
            weights[memory] = weights.get(memory, 0) + values[var.name].numpy().nbytes
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
        ],
        "weights": weights,
    }


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
