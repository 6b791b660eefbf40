"""The function bodies that ONNX's own schemas give for operators, as graphs to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx.defs
from onnx import AttributeProto, FunctionProto, NodeProto, TypeProto
from tvm import relax, tirx

from burnish.compiler.importers.onnx.registry import STANDARD
from burnish.compiler.importers.onnx.values import elem_type


def has_body(op: str, domain: str, version: int) -> bool:
    """Whether the schema of this operator gives a function body."""
    schema = _schema(op, domain, version)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def function_body(
    node: NodeProto, domain: str, version: int, inputs: Sequence[Any]
) -> FunctionProto | None:
    """The body of a node whose inputs are these expressions; None where there is none.

    Of the versions a schema gives a body for, the newest up to ``version`` is taken.
    """
    schema = _schema(node.op_type, domain, version)
    if schema is None:
        return None
    function = FunctionProto()
    fixed = [v for v in schema.function_opset_versions if v <= version]
    if fixed:
        function.ParseFromString(schema.get_function_with_opset_version(max(fixed)))
        return function
    depending = [v for v in schema.context_dependent_function_opset_versions if v <= version]
    if not depending:
        return None
    types = [type_of(expr).SerializeToString() for expr in inputs]
    body = schema.get_context_dependent_function_with_opset_version(
        max(depending), node.SerializeToString(), types
    )
    if not body:
        return None
    function.ParseFromString(body)
    return function


def default_attributes(node: NodeProto, domain: str, version: int) -> dict[str, AttributeProto]:
    """The attributes given, and the schema's defaults for those left out."""
    schema = _schema(node.op_type, domain, version)
    found = {}
    for name, attribute in (schema.attributes if schema is not None else {}).items():
        if attribute.default_value.name:
            found[name] = attribute.default_value
    return {**found, **{attribute.name: attribute for attribute in node.attribute}}


def type_of(expr: Any) -> TypeProto:
    """The ONNX type of an expression; empty where it is left out or no tensor."""
    found = TypeProto()
    if expr is None or not isinstance(getattr(expr, "ty", None), relax.TensorType):
        return found
    found.tensor_type.elem_type = elem_type(str(expr.ty.dtype))
    if isinstance(expr.ty.shape, relax.ShapeExpr):
        found.tensor_type.shape.SetInParent()
        for size in expr.ty.shape:
            dim = found.tensor_type.shape.dim.add()
            if isinstance(size, tirx.IntImm):
                dim.dim_value = int(size)
            else:
                dim.dim_param = str(size)
    elif expr.ty.ndim >= 0:
        for _ in range(expr.ty.ndim):
            found.tensor_type.shape.dim.add()
    return found


def _schema(op: str, domain: str, version: int) -> Any:
    try:
        return onnx.defs.get_schema(op, version, "" if domain in STANDARD else domain)
    except onnx.defs.SchemaError:
        return None


__all__ = ["default_attributes", "function_body", "has_body", "type_of"]
