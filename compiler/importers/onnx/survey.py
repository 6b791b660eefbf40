"""The nodes of an ONNX model and their FLOPs, for a survey."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from burnish.compiler.importers.onnx.checks import graphs_of
from burnish.compiler.importers.onnx.fold import inline_functions, run_time_inputs
from burnish.compiler.importers.survey import Work

Shape = tuple[int, ...]
# No arithmetic: what moves, names or makes data.
FREE = {
    *("Cast", "CastLike", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Dropout"),
    *("Expand", "EyeLike", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad"),
    *("Reshape", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "SpaceToDepth"),
    *("Split", "SplitToSequence", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# Operator -> where its two factors are among the inputs.
PRODUCTS = {
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
}
CONVOLUTIONS = {"Conv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3)}


def work_of(model: ModelProto, example_inputs: Any) -> Iterator[Work]:
    """One :class:`Work` a node, functions of the model written out."""
    plain = inline_functions(model)
    versions = {o.domain: o.version for o in plain.opset_import}
    shapes = _shapes(plain, _example_shapes(plain, example_inputs))
    for graph in graphs_of(plain.graph):
        for node in graph.node:
            if node.op_type == "Constant":
                continue
            domain = node.domain or "ai.onnx"
            version = versions.get(node.domain, versions.get("ai.onnx"))
            name = node.name or next((n for n in node.output if n), node.op_type)
            yield Work(node.op_type, name, flops(node, shapes), domain, version)


def flops(node: NodeProto, shapes: Mapping[str, Shape]) -> int | None:
    """Operations of one node; None where a size that counts is not known."""
    if node.op_type in FREE:
        return 0
    given = [shapes.get(name) for name in node.input]
    out = next((shapes[name] for name in node.output if name in shapes), None)
    if node.op_type in CONVOLUTIONS:
        w = given[CONVOLUTIONS[node.op_type][1]]
        return None if w is None or out is None else 2 * math.prod(out) * math.prod(w[1:])
    if node.op_type == "ConvTranspose":
        x, w = given[0], given[1]
        return None if w is None or x is None else 2 * math.prod(x) * math.prod(w[1:])
    if node.op_type in PRODUCTS:
        a = given[PRODUCTS[node.op_type][0]]
        if not a or out is None:
            return None
        turned = any(at.name == "transA" and at.i for at in node.attribute)
        return 2 * math.prod(out) * a[0 if turned else -1]
    if node.op_type in GATES:
        x, w, r = given[:3]
        if x is None or w is None or r is None:
            return None
        each = w[1] * w[2] + r[1] * r[2]
        return 2 * x[0] * x[1] * w[0] * each
    if node.op_type == "Attention" and given[0] is not None and len(given) > 1 and given[1]:
        return 4 * math.prod(given[0]) * given[1][-2]
    return None if out is None else math.prod(out)


def _example_shapes(model: ModelProto, examples: Any) -> dict[str, Shape]:
    names = [value.name for value in run_time_inputs(model)]
    if isinstance(examples, Mapping):
        pairs = list(examples.items())
    elif isinstance(examples, (tuple, list)):
        pairs = list(zip(names, examples, strict=False))
    else:
        pairs = [] if examples is None else [(names[0], examples)]
    return {n: tuple(int(s) for s in v.shape) for n, v in pairs if hasattr(v, "shape")}


def _shapes(model: ModelProto, examples: Mapping[str, Shape]) -> dict[str, Shape]:
    """Every value's sizes, as far as ONNX infers them; open ones are 1."""
    pinned = ModelProto()
    pinned.CopyFrom(model)
    for value in pinned.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if value.name in examples and axis < len(examples[value.name]):
                dim.dim_value = examples[value.name][axis]
            elif dim.dim_value < 1:
                dim.dim_value = 1
    del pinned.graph.value_info[:]
    if pinned.ByteSize() < 2**30:
        pinned = onnx.shape_inference.infer_shapes(pinned, data_prop=True)
    found: dict[str, Shape] = {}
    for graph in graphs_of(pinned.graph):
        for tensor in graph.initializer:
            found[tensor.name] = tuple(tensor.dims)
        for value in [*graph.input, *graph.value_info, *graph.output]:
            kind = value.type.tensor_type
            if kind.HasField("shape") and kind.elem_type != TensorProto.UNDEFINED:
                found.setdefault(
                    value.name, tuple(max(int(d.dim_value), 1) for d in kind.shape.dim)
                )
    return found
