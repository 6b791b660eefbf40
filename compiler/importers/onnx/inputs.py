"""Inputs of an ONNX model as its file declares them."""

from __future__ import annotations

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.formats import Input
from burnish.compiler.importers.onnx.fold import run_time_inputs


def declared_inputs(model: ModelProto) -> list[Input]:
    """Run-time inputs; :class:`ImportModelError` for one that is no tensor of numbers."""
    return [_declared(value) for value in run_time_inputs(model)]


def _declared(value: ValueInfoProto) -> Input:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type in (
        TensorProto.UNDEFINED,
        TensorProto.STRING,
    ):
        raise ImportModelError(f"the input {value.name!r} is no tensor of numbers")
    sizes = tuple(
        int(dim.dim_value) if dim.dim_value > 0 else dim.dim_param for dim in tensor.shape.dim
    )
    return Input(value.name, sizes, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)
