"""The ONNX pre-pass: fix the sizes that are known, and drop dead nodes with ONNX Runtime.

Exports compute shapes at run time even where they cannot change; with sizes fixed those
computations are constants, and TVM's importer takes shapes only as constants.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import ModelProto, helper, numpy_helper

from burnish.compiler.importers.onnx.checks import graphs_of
from burnish.compiler.importers.onnx.registry import STANDARD
from burnish.compiler.importers.onnx.values import constant_of

Dim = int | str

# Rewrites of weights: ours do the same later, under the weights' own names and measured. And
# what makes one of two equal weights, so that one of their names is lost.
NOT_FOLDED = (
    "CommonSubexpressionElimination",
    "ConstantSharing",
    "ConvAddFusion",
    "ConvBNFusion",
    "ConvMulFusion",
    "MatMulAddFusion",
    "MatmulBNFusion",
)


def run_time_inputs(model: ModelProto) -> list[onnx.ValueInfoProto]:
    """Graph inputs that are no initializers."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def pin(
    model: ModelProto,
    shapes: Mapping[str, tuple[Dim, ...]],
    constants: Mapping[str, Any],
) -> ModelProto:
    """A copy whose inputs have these shapes, and whose constant inputs are initializers.

    Declared shapes of outputs and of values in between are dropped: exporters write what held
    for their own example.
    """
    pinned = ModelProto()
    pinned.CopyFrom(model)
    graph = pinned.graph
    for value in run_time_inputs(pinned):
        tensor = value.type.tensor_type
        if value.name in constants:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            array = _constant(constants[value.name], value, dtype)
            graph.initializer.append(numpy_helper.from_array(array, value.name))
            continue
        if value.name not in shapes:
            continue
        del tensor.shape.dim[:]
        for extent in shapes[value.name]:
            dim = tensor.shape.dim.add()
            if isinstance(extent, str):
                dim.dim_param = extent
            else:
                dim.dim_value = extent
        if not shapes[value.name]:
            tensor.shape.SetInParent()
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)
    del graph.value_info[:]
    for output in graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    return pinned


def _constant(given: Any, declared: onnx.ValueInfoProto, dtype: np.dtype) -> np.ndarray:
    """A plain number in the declared shape (open sizes are 1), a list of numbers in its own."""
    if isinstance(given, list):
        return np.array(given, dtype)
    size = [dim.dim_value or 1 for dim in declared.type.tensor_type.shape.dim]
    return np.full(size, given, dtype)


def fold(model: ModelProto) -> ModelProto:
    """The model after ONNX Runtime's basic rewrites (dead and doubled nodes dropped).

    Where it is not installed, or does not take the model (newer operator sets, for one), the model
    is as it was: constants are folded in the import itself (``folding``), and what cannot be
    imported is named there.
    """
    try:
        import onnxruntime
    except ImportError:
        return model
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "model.onnx"), Path(folder, "folded.onnx")
        options.optimized_model_filepath = str(target)
        large = model.ByteSize() > 2**30
        if large:
            options.add_session_config_entry(
                "session.optimized_model_external_initializers_file_name", "folded.bin"
            )
        stored = ModelProto()
        stored.CopyFrom(model)
        onnx.save_model(stored, str(source), save_as_external_data=large, location="weights.bin")
        try:
            onnxruntime.InferenceSession(
                str(source),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=NOT_FOLDED,
            )
        except Exception:  # noqa: BLE001 - onnxruntime raises a class of its own for each cause
            return model
        return onnx.load_model(str(target))


def inline_functions(model: ModelProto) -> ModelProto:
    """The model with its own functions written out."""
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def spell_out(model: ModelProto) -> ModelProto:
    """The model with defaults written out that onnx 1.23's shape inference forgets."""
    if not any(node.op_type == "STFT" for graph in graphs_of(model.graph) for node in graph.node):
        return model
    written = ModelProto()
    written.CopyFrom(model)
    for graph in graphs_of(written.graph):
        for node in graph.node:
            if node.op_type == "STFT" and not node.attribute:
                node.attribute.append(helper.make_attribute("onesided", 1))
    return written


def lift_constants(model: ModelProto) -> ModelProto:
    """A copy whose Constant nodes and inner graphs' initializers are initializers of the graph.

    A weight keeps its name; one that is taken already gets the name of its node's output before
    it. So every weight is a parameter wherever in the model it is used.
    """
    lifted = ModelProto()
    lifted.CopyFrom(model)
    top = lifted.graph
    taken = {tensor.name for tensor in top.initializer}
    for graph in graphs_of(top):
        inner = graph is not top
        for node in [n for n in graph.node if n.op_type == "Constant" and n.domain in STANDARD]:
            array = constant_of(node.attribute[0]) if node.attribute else None
            if array is not None and node.output[0] not in taken:
                top.initializer.append(numpy_helper.from_array(array, node.output[0]))
                taken.add(node.output[0])
                graph.node.remove(node)
        if not inner:
            continue
        for tensor in [t for t in graph.initializer if t.name not in taken]:
            top.initializer.append(tensor)
            taken.add(tensor.name)
            graph.initializer.remove(tensor)
    return lifted
