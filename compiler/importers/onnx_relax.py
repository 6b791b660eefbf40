"""ONNX graph -> Relax under the IR convention, on TVM's converters.

TVM's importer is subclassed for the convention: float weights become parameters under their
initializer names, while shapes, axes and other settings stay constants, since converters read
their values. Results are held to the types that ONNX's shape inference gives.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import ModelProto, TensorProto, helper
from tvm import relax, tirx
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter, get_numpy

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import onnx_ops, onnx_shapes
from burnish.compiler.importers.onnx_checks import STANDARD, graphs_of
from burnish.compiler.signature import TensorSpec

WEIGHT_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8")
# First input, by operator, from which inputs are settings that converters read as constants.
SETTINGS_FROM = {
    "Clip": 1,
    "DequantizeLinear": 1,
    "Dropout": 1,
    "OneHot": 1,
    "Pad": 1,
    "QuantizeLinear": 1,
    "Range": 0,
    "Resize": 1,
    "TopK": 1,
    "Upsample": 1,
}
# Operators whose converters take a target shape, and the input it is.
TAKES_SHAPE = {"ConstantOfShape": 0, "Expand": 1}


class GraphImporter(ONNXGraphImporter):
    """One import of one graph, with inputs as the signature says."""

    def __init__(self, model: ModelProto, inputs: tuple[TensorSpec, ...]) -> None:
        super().__init__({}, None, keep_params_in_input=True, sanitize=False)
        self._nodes: dict[str, Any] = {}
        self.model = model
        self.specs = inputs
        # Expression -> the sizes it holds; kept alive here, so that its id stays its own.
        self._sizes: dict[int, tuple[relax.Expr, onnx_shapes.Sizes]] = {}
        self.weights: dict[str, np.ndarray] = {}
        self.opset = next(o.version for o in model.opset_import if o.domain in STANDARD)

    def module(self) -> tvm.IRModule:
        """The module; its weights are in :attr:`weights`."""
        graph = self.model.graph
        variables = self._declare_inputs()
        parameters = self._declare_weights(graph)
        branches = any(node.op_type == "If" for node in graph.node)
        with self.bb.function(
            "main", params=[*variables, *parameters], attrs={"num_input": len(variables)}
        ):
            with contextlib.nullcontext() if branches else self.bb.dataflow():
                self._nodes_quietly(graph)
                result = relax.Tuple([self._output(value.name) for value in graph.output])
                if not branches:
                    result = self.bb.emit_output(result)
            self.bb.emit_func_output(result)
        return self.bb.get()

    def _declare_inputs(self) -> list[relax.Var]:
        sizes: dict[str, tirx.Var] = {}
        variables = []
        for index, spec in enumerate(self.specs):
            shape = [
                sizes.setdefault(n, tirx.Var(n, "int64")) if isinstance(n, str) else n
                for n in spec.shape
            ]
            name = "".join(c if c.isalnum() else "_" for c in spec.name)
            name = name if name[:1].isalpha() else f"input_{index}_{name}"
            self._nodes[spec.name] = relax.Var(name, relax.TensorType(shape, spec.dtype))
            variables.append(self._nodes[spec.name])
        return variables

    def _declare_weights(self, graph: onnx.GraphProto) -> list[relax.Var]:
        settings = _settings(graph)
        parameters = []
        for tensor in graph.initializer:
            array = get_numpy(tensor).reshape(tuple(tensor.dims))
            if is_weight(array) and tensor.name not in settings:
                self.weights[tensor.name] = array
                ty = relax.TensorType(list(array.shape), str(array.dtype))
                self._nodes[tensor.name] = relax.Var(tensor.name, ty)
                parameters.append(self._nodes[tensor.name])
            else:
                self._nodes[tensor.name] = relax.const(array, str(array.dtype))
        return parameters

    def _nodes_quietly(self, graph: onnx.GraphProto) -> None:
        """TVM prints the inputs of a failing node to stdout; the error says which it was."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._construct_nodes(graph)

    def _convert_operator(
        self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int
    ) -> relax.Expr:
        try:
            sized = self._over_sizes(op_name, inputs, attrs)
            if sized is not None:
                return sized
            if op_name in onnx_ops.CONVERTERS:
                own = onnx_ops.CONVERTERS[op_name](self.bb.emit, list(inputs), attrs)
                if own is not None:
                    return self.bb.normalize(own)
            return super()._convert_operator(op_name, inputs, attrs, opset)
        except ImportModelError:
            raise
        except Exception as error:
            where = attrs.get("tvm_custom", {}).get("name") or "an unnamed node"
            raise ImportModelError(f"{op_name} at {where}: {error}", op=op_name) from error

    def _over_sizes(self, op_name: str, inputs: Any, attrs: dict[str, Any]) -> relax.Expr | None:
        """A node that computes sizes, or shapes something by them; None for every other."""
        if op_name == "Shape":
            sizes = onnx_shapes.shape_sizes(inputs[0])
            sizes = None if sizes is None else sizes[attrs.get("start") : attrs.get("end")]
        elif any(id(expr) in self._sizes for expr in inputs):
            given = [self._sizes_of(expr) for expr in inputs]
            sizes = onnx_shapes.evaluate(op_name, given, attrs)
            if sizes is None:
                return self._shaped(op_name, inputs, given, attrs)
        else:
            return None
        if sizes is None:
            return None
        if op_name in ("Shape", "Cast"):
            dtype = "int32" if attrs.get("to") == TensorProto.INT32 else "int64"
        else:
            dtype = str(inputs[0].ty.dtype)
        expr = self.bb.normalize(onnx_shapes.to_tensor(sizes, dtype))
        self._sizes[id(expr)] = (expr, sizes)
        return expr

    def _shaped(
        self,
        op_name: str,
        inputs: Any,
        given: list[onnx_shapes.Sizes | None],
        attrs: dict[str, Any],
    ) -> relax.Expr | None:
        """Reshape to known sizes; for others that take a shape, the input replaced by one."""
        if op_name == "Reshape":
            sizes, shape = given[1], onnx_shapes.shape_sizes(inputs[0])
            if sizes is None or shape is None:
                return None
            zero = bool(attrs.get("allowzero", 0))
            target = onnx_shapes.reshape_target(sizes, shape.tolist(), zero)
            return self.bb.normalize(relax.op.reshape(inputs[0], target))
        at = TAKES_SHAPE.get(op_name)
        sizes = None if at is None else given[at]
        expr = None if sizes is None else onnx_shapes.to_expr(sizes)
        if expr is not None:
            inputs[at] = expr
        return None

    def _sizes_of(self, expr: relax.Expr | None) -> onnx_shapes.Sizes | None:
        if id(expr) in self._sizes:
            return self._sizes[id(expr)][1]
        array = None if expr is None else onnx_ops.value_of(expr)
        return None if array is None else onnx_shapes.constant_sizes(array)

    def _convert_subgraph(self, bb: relax.BlockBuilder, graph: onnx.GraphProto) -> relax.Expr:
        """A branch of If as a sequence of its own, so that only the branch taken is computed."""
        outer = dict(self._nodes)
        nested = any(node.op_type == "If" for node in graph.node)
        if nested:
            bb._begin_binding_block()
        else:
            bb._begin_dataflow_block()
        try:
            for tensor in graph.initializer:
                self._nodes[tensor.name] = relax.const(get_numpy(tensor).reshape(tensor.dims))
            self._construct_nodes(graph)
            values = [self._output(value.name) for value in graph.output]
            result = values[0] if len(values) == 1 else relax.Tuple(values)
            result = bb.emit(result) if nested else bb.emit_output(result)
        finally:
            block = bb._end_block()
            self._nodes = outer
        return relax.SeqExpr([block], result)

    def _output(self, name: str) -> relax.Expr:
        value = self._nodes[name]
        if isinstance(value.ty, relax.ShapeType):
            value = self.bb.emit(relax.op.shape_to_tensor(value))
        return value


def is_weight(array: np.ndarray) -> bool:
    """Whether an initializer is a weight by its values: numbers that are no index and no scalar."""
    return str(array.dtype) in WEIGHT_DTYPES and array.size > 1


def check_types(model: ModelProto, nodes: Mapping[str, relax.Expr]) -> None:
    """Refuse a result whose type is not the one ONNX gives it; such converters are wrong."""
    for value in [*model.graph.value_info, *model.graph.output]:
        expr, want = nodes.get(value.name), value.type.tensor_type
        if expr is None or not isinstance(expr.ty, relax.TensorType) or not want.elem_type:
            continue
        got, dtype = str(expr.ty.dtype), numpy_dtype(want.elem_type)
        if got != dtype:
            raise ImportModelError(
                f"the converter of the node that makes {value.name!r} gives {got}, "
                f"ONNX says {dtype}"
            )
        shape = expr.ty.shape
        if not want.HasField("shape") or not isinstance(shape, relax.ShapeExpr):
            continue
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in want.shape.dim]
        found = [int(n) if isinstance(n, tirx.IntImm) else None for n in shape]
        same = len(sizes) == len(found) and all(
            None in pair or pair[0] == pair[1] for pair in zip(sizes, found, strict=True)
        )
        if not same:
            raise ImportModelError(
                f"the converter of the node that makes {value.name!r} gives shape {found}, ONNX "
                f"says {sizes}"
            )


def _settings(graph: onnx.GraphProto) -> set[str]:
    """Initializers that some node takes as a setting."""
    return {
        name
        for inner in graphs_of(graph)
        for node in inner.node
        if node.op_type in SETTINGS_FROM
        for name in node.input[SETTINGS_FROM[node.op_type] :]
    }


def numpy_dtype(elem_type: int) -> str:
    if elem_type == TensorProto.BFLOAT16:
        return "bfloat16"
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)))
