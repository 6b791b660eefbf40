"""The operators of a Relay module and their FLOPs, for a survey."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from burnish.compiler.importers.relay.graph import (
    Call,
    Constant,
    Graph,
    Id,
    Operator,
    TensorType,
    Var,
)
from burnish.compiler.importers.relay.layouts import axes_of
from burnish.compiler.importers.relay.model import RelayModel
from burnish.compiler.importers.relay.ops import index, shape
from burnish.compiler.importers.survey import Work

PRODUCTS = ("nn.dense", "nn.matmul", "nn.batch_matmul", "qnn.dense", "qnn.batch_matmul")
# Data that moves, or is written, is no work.
FREE = {
    *shape.CONVERTERS,
    *index.CONVERTERS,
    *(f"dyn.{name}" for name in ("broadcast_to", "expand_dims", "full", "nn.pad", "one_hot")),
    *(f"dyn.{name}" for name in ("ones", "reshape", "squeeze", "strided_slice", "tile", "topk")),
    *("arange", "cast", "cast_like", "copy", "dyn.zeros", "full", "full_like", "nn.dropout"),
    *("ones", "ones_like", "reinterpret", "zeros", "zeros_like"),
} - {"einsum"}


def work_of(model: RelayModel, example_inputs: Any = None) -> Iterator[Work]:
    """One :class:`Work` a call of an operator; open sizes count as 1, functions once."""
    graph = model.graph
    for at, node in enumerate(graph.nodes):
        called = graph.nodes[node.op] if isinstance(node, Call) else None
        if isinstance(called, Operator):
            flops = _flops(graph, at, called.name)
            yield Work(called.name, graph.places[at], flops, "relay")


def _flops(graph: Graph, at: Id, name: str) -> int | None:
    if name in FREE:
        return 0
    result = _shape(graph, at)
    if result is None:
        return None
    node = graph.nodes[at]
    assert isinstance(node, Call)
    count = math.prod(result)
    shapes = [_shape(graph, arg) for arg in node.args[:2]]
    if name in PRODUCTS:
        inner = shapes[0]
        swapped = bool(node.attrs.get("transpose_a"))
        return None if not inner else 2 * count * inner[-2 if swapped else -1]
    if "conv" in name and "d_transpose" in name:
        return _per_place(node, shapes[1], math.prod(shapes[0] or []), "I")
    if "conv" in name and "kernel_layout" in node.attrs:
        return _per_place(node, shapes[1], count, "O")
    return count


def _per_place(node: Call, kernel: tuple[int, ...] | None, places: int, free: str) -> int | None:
    """Two for each weight that meets a place; the axis ``free`` is that of the places."""
    letters = [letter for letter, _ in axes_of(str(node.attrs["kernel_layout"]))]
    if kernel is None or free not in letters or len(letters) != len(kernel):
        return None
    return 2 * places * math.prod(kernel) // max(1, kernel[letters.index(free)])


def _shape(graph: Graph, at: Id) -> tuple[int, ...] | None:
    node = graph.nodes[at]
    if isinstance(node, Constant):
        return tuple(node.array.shape)
    kind = node.type if isinstance(node, Var) else graph.types.get(at)
    if not isinstance(kind, TensorType):
        return None
    return tuple(1 if n is None else n for n in kind.shape)
