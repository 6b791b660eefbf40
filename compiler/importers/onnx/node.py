"""One node of an ONNX graph, as converters see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import AttributeProto, NodeProto, helper
from tvm import relax

from burnish.compiler.importers.onnx import bodies, sizes
from burnish.compiler.importers.onnx.values import to_array, value_of

if TYPE_CHECKING:
    from burnish.compiler.importers.onnx.graph import GraphImporter


@dataclass
class Node:
    """A node with its inputs converted.

    ``inputs`` holds Relax expressions, None for those left out; ``outputs`` holds names, "" for
    those left out. ``attrs`` holds the attributes given: numbers, strings, lists, NumPy arrays for
    tensors, protos for graphs and types. ``version`` is the version of the domain's operator set
    (24 for ai.onnx of opset 24). ``proto`` is the node itself, ``graph`` the import it is part of.
    """

    op: str
    domain: str
    version: int
    name: str
    inputs: list[Any]
    outputs: list[str]
    attrs: dict[str, Any]
    proto: NodeProto = field(repr=False)
    graph: GraphImporter = field(repr=False)

    @property
    def bb(self) -> relax.BlockBuilder:
        return self.graph.bb

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Bind an expression to a variable; what is used twice must be bound once."""
        return self.graph.bb.emit(expr)

    def input(self, index: int) -> Any:
        """The input at ``index``; None where it is left out or beyond the end."""
        return self.inputs[index] if index < len(self.inputs) else None

    def wants(self, index: int) -> bool:
        """Whether the output at ``index`` has a name."""
        return index < len(self.outputs) and bool(self.outputs[index])

    def value(self, index: int) -> np.ndarray | None:
        """The array of an input known at import (constants, and sizes without symbols)."""
        return self.graph.constant(self.input(index))

    def sizes(self, index: int) -> sizes.Sizes | None:
        """The elements of a small integer input as ints and symbols, where they are known."""
        return self.graph.sizes_of(self.input(index))

    def shape(self, index: int = 0) -> list[Any] | None:
        """The sizes of an input, symbols included; None where its shape is not known."""
        found = sizes.shape_sizes(self.input(index))
        return None if found is None else found.tolist()

    def body(self) -> tuple[Any, ...]:
        """The results of the schema's own function body, which this operator must have."""
        function = bodies.function_body(self.proto, self.domain, self.version, self.inputs)
        if function is None:
            raise ValueError(f"the schema of {self.op} gives no body for this form")
        return self.graph.call_function(self, function)

    def dtype(self, index: int = 0) -> str:
        """The element type of an input."""
        return str(self.inputs[index].ty.dtype)

    def elem_type(self, index: int = 0) -> int:
        """The element type of an input in ONNX, which TVM may carry in another."""
        return self.graph.elem_type(self.inputs[index])

    def typed(self, expr: relax.Expr, kind: int) -> relax.Expr:
        """A result whose type in ONNX is ``kind``."""
        return self.graph.typed(expr, kind)

    def ndim(self, index: int = 0) -> int:
        """The rank of an input; -1 where it is not known."""
        return int(self.inputs[index].ty.ndim)


def attributes(proto: NodeProto) -> dict[str, Any]:
    """The attributes given, as Python values."""
    return {a.name: _value(a) for a in proto.attribute}


def _value(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if attribute.type == AttributeProto.TENSOR:
        return to_array(value)
    if attribute.type == AttributeProto.STRINGS:
        return [item.decode("utf-8", errors="replace") for item in value]
    return list(value) if isinstance(value, (list, tuple)) else value


def bind_attributes(node: NodeProto, given: Mapping[str, AttributeProto]) -> NodeProto:
    """A function's node with references to the function's attributes resolved, inside too.

    An attribute that refers to one that is not given is dropped: its default holds then.
    """
    bound = NodeProto()
    bound.CopyFrom(node)
    del bound.attribute[:]
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name in given:
                copy = bound.attribute.add()
                copy.CopyFrom(given[attribute.ref_attr_name])
                copy.name = attribute.name
            continue
        copy = bound.attribute.add()
        copy.CopyFrom(attribute)
        if attribute.type == AttributeProto.GRAPH:
            inner = [bind_attributes(n, given) for n in attribute.g.node]
            del copy.g.node[:]
            copy.g.node.extend(inner)
    return bound


__all__ = ["Node", "attributes", "bind_attributes", "value_of"]
