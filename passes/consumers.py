"""What reads each weight, and along which of its axes: the facts that weight passes share."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.passes.graph import bindings, op_name
from burnish.passes.params import weight_vars

CONVOLUTIONS = frozenset(
    f"relax.nn.conv{rank}d{kind}" for rank in (1, 2, 3) for kind in ("", "_transpose")
)


@dataclass(frozen=True)
class WeightUse:
    """One consumer of a weight; axes are those of the weight as stored.

    ``channel_axis`` indexes output channels (rows of a table for ``take``), ``reduction_axes``
    (ascending) are summed over, ``group_axis`` is the one that groups run along: input
    features, or input channels. Axes that are neither are batches of matrices.
    """

    op: str
    channel_axis: int
    reduction_axes: tuple[int, ...]
    group_axis: int


@dataclass(frozen=True)
class _View:
    """A weight seen through transposes: view axis ``j`` is weight axis ``axes[j]``."""

    name: str
    axes: tuple[int, ...]


def weight_uses(mod: tvm.IRModule) -> dict[str, list[WeightUse]]:
    """For each weight, its uses by matmul, convolution and ``take``, in program order.

    Uses through ``permute_dims`` and ``astype`` count. A weight that only other operators read
    has an empty list.
    """
    uses: dict[str, list[WeightUse]] = {}
    views: dict[relax.Var, _View] = {}
    for var in weight_vars(mod):
        uses[var.name] = []
        if isinstance(var.ty, relax.TensorType) and var.ty.ndim >= 2:
            views[var] = _View(var.name, tuple(range(var.ty.ndim)))
    for binding in bindings(mod["main"]):
        value = binding.value
        if isinstance(value, relax.Var) and value in views:
            views[binding.var] = views[value]
        if not op_name(value):
            continue
        for index, argument in enumerate(value.args):
            view = views.get(argument) if isinstance(argument, relax.Var) else None
            if view is None:
                continue
            if index == 0 and value.op.name in ("relax.permute_dims", "relax.astype"):
                views[binding.var] = _View(view.name, _moved(value, view.axes))
            use = _use(value, index, view.axes)
            if use is not None:
                uses[view.name].append(use)
    return uses


def _moved(call: relax.Call, axes: tuple[int, ...]) -> tuple[int, ...]:
    if call.op.name == "relax.astype":
        return axes
    order = call.attrs.axes
    return axes[::-1] if order is None else tuple(axes[int(axis)] for axis in order)


def _use(call: relax.Call, index: int, axes: tuple[int, ...]) -> WeightUse | None:
    name = call.op.name
    if name == "relax.matmul":
        reduced, channel = (axes[-2], axes[-1]) if index == 1 else (axes[-1], axes[-2])
        return WeightUse("matmul", channel, (reduced,), reduced)
    if name in CONVOLUTIONS and index == 1:
        return _convolution_use(call, axes)
    if name == "relax.take" and index == 0 and call.attrs.axis is not None:
        channel = axes[int(call.attrs.axis)]
        others = tuple(axis for axis in sorted(axes) if axis != channel)
        return WeightUse("take", channel, others, others[-1])
    return None


def _convolution_use(call: relax.Call, axes: tuple[int, ...]) -> WeightUse:
    layout = str(call.attrs.kernel_layout)
    out, inside = axes[layout.index("O")], axes[layout.index("I")]
    # A depthwise transposed kernel is [C, 1, ...] in IO order: its channels run along I.
    if int(call.attrs.groups) > 1 and call.op.name.endswith("_transpose"):
        per_group = int(call.args[1].ty.shape[layout.index("I")]) // int(call.attrs.groups)
        if per_group == 1:
            out, inside = inside, out
    others = tuple(axis for axis in sorted(axes) if axis != out)
    return WeightUse(call.op.name.removeprefix("relax.nn."), out, others, inside)
