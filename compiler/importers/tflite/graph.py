"""TFLite graph -> Relax under the IR convention, on TVM's converters and ours.

TVM's converter class is subclassed for what it does not do: float weights become parameters
under their tensors' names; integers known at import, symbols of open sizes among them, are carried
beside the expressions; an operator on quantized tensors is converted as the float operator between
dequantize and quantize, whichever it is; each result is held to the type that the file declares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax.frontend.tflite.tflite_frontend import ExprTable, OperatorConverter, TensorWrapper

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.tflite import known
from burnish.compiler.importers.tflite.layers import LAYERS
from burnish.compiler.importers.tflite.loops import LOOPS
from burnish.compiler.importers.tflite.schema import DTYPES, operator_name, tensor_name
from burnish.compiler.signature import TensorSpec

WEIGHT_DTYPES = ("float16", "float32", "float64", "int8", "uint8")
INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint32")
# Operators that read or write quantized tensors as such.
QUANTIZED = ("QUANTIZE", "DEQUANTIZE", "DETECTION_POSTPROCESS", "SHAPE", "RANK")


def translate(
    model: Any, specs: Sequence[TensorSpec]
) -> tuple[tvm.IRModule, dict[str, np.ndarray], list[str]]:
    """The module (weights unbound), the weights by name, and the outputs' names."""
    graph = model.Subgraphs(0)
    sizes: dict[str, tirx.Var] = {}
    table, variables = Table({}), []
    builder = relax.BlockBuilder()
    for index, (tensor, spec) in enumerate(
        zip(_indices(graph.InputsAsNumpy()), specs, strict=True)
    ):
        shape = [
            sizes.setdefault(n, tirx.Var(n, "int64")) if isinstance(n, str) else n
            for n in spec.shape
        ]
        name = "".join(c if c.isalnum() else "_" for c in spec.name)
        name = name if name[:1].isalpha() else f"input_{index}_{name}"
        variables.append(relax.Var(name, relax.TensorType(shape, spec.dtype)))
        table.set_expr(tensor_name(graph, tensor), variables[-1])
    converter = GraphImporter(model, graph, table, builder)
    outputs = _indices(graph.OutputsAsNumpy())
    with builder.function("main"):
        with builder.dataflow():
            converter.convert_op_to_relax()
            values = [converter.value(tensor) for tensor in converter.get_tensors(outputs)]
            result = builder.emit_output(relax.Tuple(values))
        parameters = list(table.parameters.values())
        builder.emit_func_output(result, [*variables, *parameters])
    mod = builder.get()
    main = mod["main"].with_attr("num_input", len(variables))
    functions = dict(mod.functions.items())
    functions[mod.get_global_var("main")] = main
    names = [tensor_name(graph, tensor) for tensor in outputs]
    return tvm.IRModule(functions), table.weights, names


class Table(ExprTable):
    """Expressions by tensor name; float arrays become parameters, shared between subgraphs.

    ``known`` holds the integers known at import, by tensor name.
    """

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.weights = weights
        self.parameters: dict[str, relax.Var] = {}
        self.places: dict[Any, relax.Var] = {}
        self.known: dict[str, known.Known] = {}

    def inner(self) -> Table:
        """A table for a subgraph, with the same weights."""
        table = Table(self.weights)
        table.parameters, table.places = self.parameters, self.places
        return table

    def new_const(
        self, value: Any, shape: Any = None, dtype: str = "float32", source_name: Any = None
    ) -> relax.Expr:
        array = np.asarray(value)
        if dtype not in WEIGHT_DTYPES or array.size < 2:
            return relax.const(array, dtype)
        name = source_name.decode(errors="replace") if isinstance(source_name, bytes) else "weight"
        place = (array.__array_interface__["data"][0], array.shape, array.strides, dtype)
        if place not in self.places:
            unique, count = name, 1
            while unique in self.weights:
                unique, count = f"{name}_{count}", count + 1
            self.weights[unique] = array
            ty = relax.TensorType(list(array.shape), dtype)
            self.places[place] = self.parameters[unique] = relax.Var(unique, ty)
        return self.places[place]


class _AsFloat:
    """A quantized tensor as a float operator sees it."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def Type(self) -> int:
        """float32"""
        return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensor, name)


class GraphImporter(OperatorConverter):
    """One conversion of one subgraph."""

    def __init__(
        self,
        model: Any,
        subgraph: Any,
        exp_tab: Any,
        ctx: relax.BlockBuilder,
        conversion_state: Any = None,
    ) -> None:
        table = exp_tab if isinstance(exp_tab, Table) else _adopted(exp_tab)
        super().__init__(model, subgraph, table, ctx, conversion_state)
        self.real: dict[int, relax.Expr] | None = None
        for name, convert in {**LAYERS, **LOOPS}.items():
            self.convert_map[name] = self._bound(convert)

    def _bound(self, convert: Callable[..., relax.Expr]) -> Callable[..., relax.Expr]:
        return lambda op: convert(self, op)

    def check_unsupported_ops(self) -> None:
        """Done for all subgraphs at once, before anything is converted."""

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Bind an expression."""
        return self.bb.emit(expr)

    def convert_op_to_relax(self) -> None:
        for index in range(self.subgraph.OperatorsLength()):
            operator = self.subgraph.Operators(index)
            name, _ = operator_name(self.model, operator)
            outputs = self.get_output_tensors(operator)
            try:
                self._convert(name, operator, outputs)
            except ImportModelError:
                raise
            except Exception as error:
                at = tensor_name(self.subgraph, outputs[0].tensor_idx) if outputs else f"{index}"
                text = str(error).strip() or type(error).__name__
                raise ImportModelError(f"{name} that makes {at!r}: {text}", op=name) from error

    def _convert(self, name: str, operator: Any, outputs: list[TensorWrapper]) -> None:
        if self._known(name, operator, outputs):
            return
        converter = self.convert_map["DETECTION_POSTPROCESS" if name.startswith("CUSTOM") else name]
        inputs = self.get_input_tensors(operator)
        if name not in QUANTIZED and any(t.qnn_params for t in [*inputs, *outputs]):
            with self._in_float(inputs):
                result = converter(op=operator)
            if result is not None:
                result = self._quantized(result, outputs)
        else:
            result = converter(op=operator)
        if result is None:
            return
        result = self.emit(result)
        parts = [result] if len(outputs) == 1 else [result[i] for i in range(len(outputs))]
        for tensor, part in zip(outputs, parts, strict=True):
            value = part if len(outputs) == 1 else self.emit(part)
            self._held(name, tensor, value)
            key = tensor_name(self.subgraph, tensor.tensor_idx)
            self.exp_tab.set_expr(key, value, force_override=True)

    def _known(self, name: str, operator: Any, outputs: list[TensorWrapper]) -> bool:
        """Whether the result is known at import; it is kept then."""
        if len(outputs) != 1 or DTYPES.get(outputs[0].tensor.Type()) not in INTEGERS:
            return False
        inputs = self.get_input_tensors(operator)
        if any(tensor.qnn_params for tensor in [*inputs, *outputs]):
            return False
        if name == "SHAPE":
            value = known.shape_of(self.value(inputs[0]))
        else:
            values = [self.known_value(tensor) for tensor in inputs]
            value = known.evaluate(name, operator, values)
        if value is None or value.size > known.MOST:
            return False
        self.set_known(outputs[0], value)
        return True

    def known_value(self, tensor: TensorWrapper) -> known.Known | None:
        """The integers of a tensor, where they are known."""
        if tensor.tensor_idx < 0:
            return None
        key = tensor_name(self.subgraph, tensor.tensor_idx)
        if key in self.exp_tab.known:
            return self.exp_tab.known[key]
        if self.has_expr(tensor.tensor_idx) or not tensor.buffer.DataLength():
            return None
        return known.constant(self.get_tensor_value(tensor))

    def set_known(self, tensor: TensorWrapper, value: known.Known) -> None:
        """Keep a value; one with symbols is an expression too."""
        key, dtype = tensor_name(self.subgraph, tensor.tensor_idx), DTYPES[tensor.tensor.Type()]
        self.exp_tab.known[key] = value
        if known.numbers(value) is None:
            expr = self.emit(known.to_expr(value, dtype))
            self.exp_tab.set_expr(key, expr, force_override=True)

    def get_tensor_value(self, tensor_wrapper: TensorWrapper, is_sparse: bool = False) -> Any:
        if isinstance(tensor_wrapper.tensor, _AsFloat):
            raise ValueError("a setting is quantized")
        key = tensor_name(self.subgraph, tensor_wrapper.tensor_idx)
        value = self.exp_tab.known.get(key)
        if value is None:
            return super().get_tensor_value(tensor_wrapper, is_sparse)
        array = known.numbers(value, DTYPES[tensor_wrapper.tensor.Type()])
        if array is None:
            raise ValueError(f"{key!r} depends on an open size: fix that size")
        return array

    def value(self, tensor: TensorWrapper) -> relax.Expr:
        """A tensor's expression: computed, constant, or the zeros that a state starts with."""
        if self.real is not None and tensor.tensor_idx in self.real:
            return self.real[tensor.tensor_idx]
        if not self.has_expr(tensor.tensor_idx):
            key = tensor_name(self.subgraph, tensor.tensor_idx)
            empty = not tensor.buffer.DataLength()
            if empty and key not in self.exp_tab.known:
                if not tensor.tensor.IsVariable():
                    raise ValueError(f"the tensor {key!r} is read before anything makes it")
                dtype = DTYPES[tensor.tensor.Type()]
                return relax.const(np.zeros(self.get_tensor_shape(tensor), dtype), dtype)
        expr = OperatorConverter.get_tensor_expr(self, tensor)
        return expr if isinstance(expr, relax.Var) else self.bb.normalize(expr)

    def get_tensor_expr(self, tensor: TensorWrapper, is_sparse: bool = False) -> relax.Expr:
        return super().get_tensor_expr(tensor, True) if is_sparse else self.value(tensor)

    def get_expr(self, input_tensor_idx: int) -> relax.Expr:
        if self.real is not None and input_tensor_idx in self.real:
            return self.real[input_tensor_idx]
        if not super().has_expr(input_tensor_idx):
            return self.value(self.get_tensors([input_tensor_idx])[0])
        return super().get_expr(input_tensor_idx)

    def has_expr(self, input_tensor_idx: int) -> bool:
        if self.real is not None and input_tensor_idx in self.real:
            return True
        return bool(super().has_expr(input_tensor_idx))

    def get_tensors(self, tensors_idx_list: Any) -> list[TensorWrapper]:
        found = super().get_tensors(tensors_idx_list)
        if self.real is not None:
            for tensor in found:
                if tensor.qnn_params is not None:
                    tensor.tensor, tensor.qnn_params = _AsFloat(tensor.tensor), None
        return list(found)

    @contextmanager
    def _in_float(self, inputs: Sequence[TensorWrapper]) -> Iterator[None]:
        """Quantized inputs read as the numbers they stand for; a bias takes its inputs' scales."""
        real = {}
        for place, tensor in enumerate(inputs):
            if tensor.tensor_idx < 0:
                continue
            params = tensor.qnn_params
            dtype = DTYPES.get(tensor.tensor.Type(), "")
            bias = place == 2 and params is None and dtype in ("int32", "int64")
            if bias and all(t.qnn_params for t in inputs[:2]):
                scale = np.multiply(*(t.qnn_params["scale"].value.numpy() for t in inputs[:2]))
                params = {"scale": relax.const(scale, "float32"), "axis": 0}
                params["zero_point"] = relax.const(0, "int32")
            if params is not None and dtype in INTEGERS:
                real[tensor.tensor_idx] = self.emit(self._dequantized(self.value(tensor), params))
        self.real = real
        try:
            yield
        finally:
            self.real = None

    @staticmethod
    def _dequantized(expr: relax.Expr, params: dict[str, Any]) -> relax.Expr:
        axis = params["axis"] if params["scale"].ty.ndim else -1
        return relax.op.dequantize(expr, params["scale"], params["zero_point"], axis, "float32")

    def _quantized(self, result: relax.Expr, outputs: Sequence[TensorWrapper]) -> relax.Expr:
        value = self.emit(result)
        if len(outputs) == 1:
            return self._stored(value, outputs[0])
        return relax.Tuple(
            [self._stored(self.emit(value[i]), tensor) for i, tensor in enumerate(outputs)]
        )

    def _stored(self, value: relax.Expr, tensor: TensorWrapper) -> relax.Expr:
        dtype = DTYPES.get(tensor.tensor.Type())
        if tensor.qnn_params is None or dtype == str(value.ty.dtype):
            return value
        return self.emit(self.quantize(value, tensor))

    def _held(self, name: str, tensor: TensorWrapper, value: relax.Expr) -> None:
        """Refuse a result whose type is not the file's; such a converter is wrong."""
        if not isinstance(value.ty, relax.TensorType):
            return
        key, want = tensor_name(self.subgraph, tensor.tensor_idx), DTYPES.get(tensor.tensor.Type())
        if want not in (None, "complex64", str(value.ty.dtype)):
            raise ValueError(f"the converter gives {value.ty.dtype}, the file says {want} ({key})")
        found = known.shape_of(value)
        declared = self.get_declared_shape(tensor)
        if found is None or declared is None:
            return
        fits = len(found) == len(declared) and all(
            not isinstance(n, int) or m < 0 or n == m
            for n, m in zip(found.tolist(), declared, strict=True)
        )
        if not fits:
            raise ValueError(f"the converter gives {found.tolist()}, the file says {declared}")

    def get_declared_shape(self, tensor: TensorWrapper) -> list[int] | None:
        """The sizes in the file, -1 where open; None where any size may follow from an input's."""
        own = tensor.tensor
        if own.ShapeSignatureLength():
            return [int(n) for n in own.ShapeSignatureAsNumpy()]
        graph = self.model.Subgraphs(0)
        inputs = [graph.Tensors(i) for i in _indices(graph.InputsAsNumpy())]
        if any(item.ShapeSignatureLength() for item in inputs):
            return None
        if own.Type() == 8 or not own.ShapeLength():
            return None
        return [int(n) for n in own.ShapeAsNumpy()]


def _adopted(table: ExprTable) -> Table:
    """A table of ours with another's expressions; its weights stay constants."""
    own = _Constants({})
    own.exprs = table.exprs
    return own


class _Constants(Table):
    """For functions of their own, which have no parameters for weights."""

    def new_const(
        self, value: Any, shape: Any = None, dtype: str = "float32", source_name: Any = None
    ) -> relax.Expr:
        return relax.const(np.asarray(value), dtype)


def _indices(listed: Any) -> list[int]:
    return [int(n) for n in listed] if isinstance(listed, np.ndarray) else []
