"""The calls of an exported program and their FLOPs, for a survey."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils.flop_counter import flop_registry

from burnish.compiler.importers.pytorch.export import decompose
from burnish.compiler.importers.pytorch.places import where
from burnish.compiler.importers.pytorch.recurrences import SEQUENCES
from burnish.compiler.importers.survey import Work

FREE = {
    *("alias", "arange", "cat", "clone", "copy", "detach", "embedding", "expand", "flatten"),
    *("full", "full_like", "gather", "index", "index_select", "lift_fresh_copy", "new_ones"),
    *("new_zeros", "ones", "pad", "permute", "reshape", "select", "slice", "split", "squeeze"),
    *("split_with_sizes", "stack", "t", "tile", "to", "_to_copy", "transpose", "unsqueeze"),
    *("unbind", "unflatten", "view", "where", "zeros", "constant_pad_nd"),
}


def work_of(program: ExportedProgram) -> Iterator[Work]:
    """One :class:`Work` a call, after the decompositions that the import makes too."""
    for module in decompose(program).graph_module.modules():
        if not isinstance(module, fx.GraphModule):
            continue
        for node in module.graph.nodes:
            if node.op == "call_function" and not isinstance(node.meta.get("val"), torch.SymInt):
                if getattr(node.target, "__module__", "") == "_operator":
                    continue
                domain = str(getattr(node.target, "namespace", ""))
                yield Work(str(node.target), where(node), _flops(node), domain)


def _flops(node: fx.Node) -> int | None:
    value = node.meta.get("val")
    if value is None:
        return 0  # a check, with no result
    out = _sizes(node)
    name = getattr(node.target, "_opname", getattr(node.target, "__name__", ""))
    if name in FREE:
        return 0
    if out is None:
        return None
    given: list[Any] = [_stand_in(a) if isinstance(a, fx.Node) else a for a in node.args]
    if name in ("linear", "matmul") and isinstance(given[0], torch.Tensor):
        return 2 * math.prod(out) * given[0].shape[-1]
    if name == "scaled_dot_product_attention":
        query, key = given[:2]
        return 2 * key.shape[-2] * (query.numel() + math.prod(out))
    if node.target in SEQUENCES:
        shapes = map(_sizes, node.args[2])  # type: ignore[arg-type]
        weights = [shape for shape in shapes if shape is not None and len(shape) == 2]
        return 2 * math.prod(out[:2]) * sum(map(math.prod, weights))
    packet = getattr(node.target, "overloadpacket", None)
    if packet in flop_registry:
        made = torch.empty(out, device="meta")
        try:
            return int(flop_registry[packet](*given, **node.kwargs, out_val=made))
        except Exception:  # noqa: BLE001 - a registered formula may want more than shapes
            return None
    return math.prod(out)


def _stand_in(node: fx.Node) -> Any:
    """A tensor without data, of the sizes that count."""
    sizes = _sizes(node)
    return None if sizes is None else torch.empty(sizes, device="meta")


def _sizes(node: fx.Node) -> tuple[int, ...] | None:
    """The sizes of a result, open ones as 1; of the first of several."""
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    if not isinstance(value, torch.Tensor):
        return None
    return tuple(1 if isinstance(n, torch.SymInt) else int(n) for n in value.shape)
