"""A record of each kernel, made as it is built."""

from __future__ import annotations

import re
from typing import Any

import tvm
from tvm import tirx

from burnish.compiler.profile.amounts import amount
from burnish.compiler.profile.counts import count
from burnish.compiler.profile.kernel import Amount, Kernel
from burnish.targets.cpu.schedule import RULE

_NUMBERED = frozenset(("exp2", "exp10", "log2", "log10", "atan2"))
"""Operators whose names end in a digit by themselves."""
_LONG = (
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "layer_norm", "rms_norm", "group_norm"),
    *("instance_norm", "batch_norm", "log_softmax", "strided_slice", "dynamic_strided_slice"),
    *("broadcast_to", "expand_dims", "gather_nd", "gather_elements", "scatter_nd"),
    *("scatter_elements", "logical_and", "logical_or", "logical_not", "logical_xor", "one_hot"),
    *("floor_divide", "floor_mod", "greater_equal", "less_equal", "not_equal", "leaky_relu"),
    *("left_shift", "right_shift", "bitwise_and", "bitwise_or", "bitwise_not", "layout_transform"),
    *("index_put", "index_tensor", "meshgrid", "zeros_like", "ones_like", "full_like"),
    *("conv1d_transpose", "conv2d_transpose", "gelu_tanh", "hard_swish", "resize2d"),
)
_WORD = re.compile(
    "|".join(sorted((f"{name}\\d*(?=_|$)" for name in _LONG), key=len, reverse=True)) + "|[^_]+"
)


def kernel_records(fused: tvm.IRModule, scheduled: tvm.IRModule) -> dict[str, Kernel]:
    """Name -> record of every kernel: counts from ``fused``, rules from ``scheduled``."""
    rules = {
        var.name_hint: _rule(func)
        for var, func in scheduled.functions.items()
        if isinstance(func, tirx.PrimFunc)
    }
    return {
        var.name_hint: record(var.name_hint, func, rules.get(var.name_hint, "own loops"))
        for var, func in fused.functions.items()
        if isinstance(func, tirx.PrimFunc)
    }


def record(name: str, func: tirx.PrimFunc, rule: str) -> Kernel:
    """The record of one unscheduled kernel."""
    found = count(func)
    return Kernel(
        name=name,
        operators=operators(name),
        rule=rule,
        dtype=found.dtype,
        arguments=tuple(_argument(param) for param in func.params),
        flops=found.flops,
        elementwise=found.elementwise,
        transcendental=found.transcendental,
        reads=found.reads,
        written=found.written,
    )


def operators(name: str) -> tuple[str, ...]:
    """``fused_conv2d1_add2_tir_clip`` -> ``conv2d, add, clip``: fusion joins names by ``_``."""
    words = [match[0] for match in _WORD.finditer(name.removeprefix("fused_"))]
    found = [word if word in _NUMBERED else _unnumbered(word) for word in words]
    return tuple(word for word in found if word and word != "tir")


def _unnumbered(word: str) -> str:
    return re.sub(r"\d+$", "", word)


def _argument(param: Any) -> tuple[Amount, ...] | str:
    shape = getattr(param, "shape", None)
    if shape is None:
        return str(param.name)
    return tuple(amount(extent) for extent in shape)


def _rule(func: tirx.PrimFunc) -> str:
    attrs = func.attrs
    return str(attrs[RULE]) if attrs is not None and RULE in attrs else "own loops"
