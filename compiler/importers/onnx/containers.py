"""Sequences and optionals among a model's inputs and outputs: nested tensors of fixed numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import TypeProto
from tvm import relax

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.onnx.values import numpy_dtype
from burnish.compiler.signature import TensorSpec, dtype_name
from burnish.runtime.trees import Node


def is_container(value: onnx.ValueInfoProto) -> bool:
    """Whether an input is a sequence or an optional."""
    return value.type.WhichOneof("value") in ("sequence_type", "optional_type")


def describe(
    value: onnx.ValueInfoProto, example: Any, given: bool, first: int
) -> tuple[Node, list[TensorSpec]]:
    """Nesting and tensors of an input, as its example has them; tensors are counted from ``first``.

    A sequence is a list, an empty optional is None; the number of elements is fixed by it. Raises
    :class:`ImportModelError` without an example, and for one of another type.
    """
    if not given:
        raise ImportModelError(
            f"the input {value.name!r} is a sequence or an optional: give example_inputs, which "
            "fix its length"
        )
    specs: list[TensorSpec] = []

    def node(ty: TypeProto, item: Any, name: str) -> Node:
        kind = ty.WhichOneof("value")
        if kind == "optional_type":
            return {"const": None} if item is None else node(ty.optional_type.elem_type, item, name)
        if kind == "sequence_type" and isinstance(item, (list, tuple)):
            inner = ty.sequence_type.elem_type
            return {"list": [node(inner, x, f"{name}.{i}") for i, x in enumerate(item)]}
        if kind != "tensor_type" or not hasattr(item, "shape"):
            raise ImportModelError(
                f"the example of {name!r} is {type(item).__name__}, the model takes {kind}"
            )
        want, got = numpy_dtype(ty.tensor_type.elem_type), dtype_name(item.dtype)
        if want != got:
            raise ImportModelError(f"the example of {name!r} is {got}, the model takes {want}")
        specs.append(TensorSpec(name, tuple(int(n) for n in item.shape), got))
        return first + len(specs) - 1

    return node(value.type, example, value.name), specs


def assemble(node: Node, leaves: Sequence[relax.Expr]) -> Any:
    """The value of an input: a tuple, a tensor, or None."""
    if isinstance(node, int):
        return leaves[node]
    if "const" in node:
        return None
    return relax.Tuple([assemble(item, leaves) for item in node["list"]])


def take_apart(
    value: Any, name: str, emit: Callable[[relax.Expr], relax.Var], leaves: dict[str, relax.Expr]
) -> Node:
    """Nesting of an output; its tensors are added to ``leaves`` under their names."""
    if value is None:
        return {"const": None}
    if isinstance(value, relax.Tuple):
        fields = list(value.fields)
    elif isinstance(value.ty, relax.TupleType):
        fields = [emit(relax.TupleGetItem(value, i)) for i in range(len(value.ty.fields))]
    else:
        leaves[name] = value
        return len(leaves) - 1
    return {"list": [take_apart(v, f"{name}.{i}", emit, leaves) for i, v in enumerate(fields)]}
