"""A region of a graph as an ONNX model, for compilers that read ONNX.

Operators are ONNX's of opset 17; shapes are static. ``writes`` says which calls can be written.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper
from tvm import relax

from burnish.compiler.external.onnx_graph import DTYPES, Graph
from burnish.compiler.external.onnx_writers import can_write, write
from burnish.passes.graph import static_shape
from burnish.passes.regions import Region

OPSET = 17
IR_VERSION = 8
FLOATS = ("float32", "float16", "bfloat16")


def writes(call: relax.Call) -> bool:
    """Whether :func:`region_model` can write ``call``."""
    tensors = [*_tensors(call), call]
    if any(static_shape(one) is None or str(one.ty.dtype) not in DTYPES for one in tensors):
        return False
    return any(str(one.ty.dtype) in FLOATS for one in tensors) and can_write(call)


def region_model(
    region: Region, weights: Mapping[str, np.ndarray], name: str = "region"
) -> onnx.ModelProto:
    """The region as a model with inputs ``in0``, ``in1`` ... and outputs ``out0`` ...

    Inputs of the region that are in ``weights``, by name, become initializers.
    """
    graph = Graph()
    inputs: list[onnx.ValueInfoProto] = []
    for var in region.inputs:
        if var.name in weights:
            graph.names[var] = graph.constant(weights[var.name])
        else:
            graph.names[var] = f"in{len(inputs)}"
            inputs.append(_info(graph.names[var], var))
    for binding in region.calls:
        graph.names[binding.var] = write(graph, binding.value)
    outputs = [f"out{place}" for place in range(len(region.outputs))]
    for var, out in zip(region.outputs, outputs, strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.names[var]], [out]))
    made = helper.make_graph(
        graph.nodes,
        name,
        inputs,
        [_info(out, var) for var, out in zip(region.outputs, outputs, strict=True)],
        graph.initializers,
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(made, opset_imports=[opset], ir_version=IR_VERSION)


def _tensors(call: relax.Call) -> list[relax.Expr]:
    found = []
    for arg in call.args:
        fields = arg.fields if isinstance(arg, relax.Tuple) else [arg]
        found += [field for field in fields if isinstance(field.ty, relax.TensorType)]
    return found


def _info(name: str, var: relax.Expr) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, DTYPES[str(var.ty.dtype)], static_shape(var))
