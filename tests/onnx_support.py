"""One ONNX node against NumPy or ONNX Runtime, through the importer and TVM's own build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from import_support import compiled
from onnx import TensorProto, helper, numpy_helper

from burnish.compiler.importers import import_model

LATEST = {"": 25, "com.microsoft": 1}


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 21,
) -> onnx.ModelProto:
    """A model of these nodes; the types of its outputs are left to shape inference."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape)
            )
            for name, value in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[
            helper.make_opsetid("", opset),
            helper.make_opsetid("com.microsoft", 1),
        ],
        ir_version=10,
    )
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in inferred.graph.output:
        if not value.type.tensor_type.elem_type:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return inferred


def run(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What the imported model gives."""
    imported = import_model(model, fold=False)
    given = [np.asarray(inputs[spec.name]).astype(spec.dtype) for spec in imported.signature.inputs]
    return compiled(imported.mod)(*given)


def node_run(
    op: str,
    inputs: Sequence[np.ndarray | None],
    *,
    constants: Sequence[int] = (),
    outputs: int = 1,
    domain: str = "",
    opset: int = 21,
    **attrs: Any,
) -> tuple[onnx.ModelProto, dict[str, np.ndarray], list[np.ndarray]]:
    """One node's model, its run-time inputs, and what the import gives.

    ``constants`` are the positions of inputs that are initializers.
    """
    names = [f"x{i}" if value is not None else "" for i, value in enumerate(inputs)]
    wanted = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, wanted, name="the_node", domain=domain, **attrs)
    given = {n: v for i, (n, v) in enumerate(zip(names, inputs, strict=True)) if n}
    fixed = {f"x{i}": given.pop(f"x{i}") for i in constants}
    model = model_of([node], given, wanted, fixed, opset=opset)
    return model, given, run(model, given)


def runtime(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime gives."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(inputs)))


def same(
    got: Sequence[np.ndarray], want: Sequence[np.ndarray], rtol: float = 1e-4, atol: float = 1e-5
) -> None:
    """Types, shapes and values; for integers every one."""
    assert [(a.shape, str(a.dtype)) for a in got] == [(b.shape, str(b.dtype)) for b in want]
    for a, b in zip(got, want, strict=True):
        if a.dtype.kind in "biu":
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(
                a.astype(np.float64), b.astype(np.float64), rtol=rtol, atol=atol
            )
