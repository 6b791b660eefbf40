"""A .tflite file: read, checked, and turned into a module under the IR convention."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.examples import by_name
from burnish.compiler.importers.formats import Input
from burnish.compiler.importers.tflite.checks import check_supported
from burnish.compiler.importers.tflite.graph import translate
from burnish.compiler.importers.tflite.schema import DTYPES, require_schema, tensor_name
from burnish.compiler.importers.tidy import drop_unused
from burnish.compiler.signature import Dim, Signature, TensorSpec, dtype_name
from burnish.passes.params import with_params

IDENTIFIER = b"TFL3"


@dataclass(frozen=True)
class TfliteModel:
    """The bytes of a file, and the flat buffer over them."""

    data: bytes
    model: Any


def read_model(path: Path) -> TfliteModel:
    """The model in a file whose tables hang together.

    Raises :class:`ImportModelError` for a file that is truncated or something else, and where
    the ``tflite`` package is missing.
    """
    schema = require_schema()
    data = path.read_bytes()
    if data[4:8] != IDENTIFIER:
        raise ImportModelError(f"{path} is no TFLite model: it has no {IDENTIFIER.decode()} mark")
    try:
        model = schema.Model.GetRootAs(data, 0)
        _check_tables(model)
    except ImportModelError as error:
        raise ImportModelError(f"{path}: {error.message}") from error
    except Exception as error:
        raise ImportModelError(
            f"{path} is no TFLite model, or is truncated: {type(error).__name__}: {error}"
        ) from error
    return TfliteModel(data, model)


def digest(content: TfliteModel) -> str:
    """sha256 of the file."""
    return hashlib.sha256(content.data).hexdigest()


def declared_inputs(content: TfliteModel) -> list[Input]:
    """Inputs of the main subgraph; :class:`ImportModelError` for one that is no tensor."""
    graph = content.model.Subgraphs(0)
    found = []
    for index in graph.InputsAsNumpy() if graph.InputsLength() else ():
        tensor, name = graph.Tensors(int(index)), tensor_name(graph, int(index))
        dtype = DTYPES.get(tensor.Type())
        if dtype is None or dtype == "complex64":
            raise ImportModelError(f"the input {name!r} is no tensor of real numbers")
        found.append(Input(name, open_shape(tensor), dtype))
    return found


def open_shape(tensor: Any) -> tuple[int | str, ...]:
    """The declared sizes; ``""`` for one that the file leaves open."""
    shape = tensor.ShapeAsNumpy().tolist() if tensor.ShapeLength() else []
    if tensor.ShapeSignatureLength() == len(shape) and shape:
        return tuple("" if n < 0 else int(n) for n in tensor.ShapeSignatureAsNumpy())
    return tuple(int(n) for n in shape)


def import_tflite(
    content: TfliteModel,
    example_inputs: Any,
    dynamic: Mapping[str, Any] | None,
    *,
    fold: bool,
) -> tuple[tvm.IRModule, Signature]:
    """Module under the IR convention, and signature; the outputs are a list.

    Quantized operators compute in float between their tensors' scales, which is within a step of
    TFLite's integers. Raises :class:`ImportModelError` with what is wrong and what to do.
    """
    declared = declared_inputs(content)
    specs = tuple(_specs(declared, example_inputs, dynamic or {}))
    check_supported(content.model)
    mod, weights, outputs = translate(content.model, specs)
    mod = drop_unused(with_params(mod, weights))
    fields = mod["main"].ret_ty.fields
    results = tuple(
        TensorSpec(
            name,
            tuple(int(n) if hasattr(n, "value") else str(n) for n in ty.shape or ()),
            str(ty.dtype),
        )
        for name, ty in zip(outputs, fields, strict=True)
    )
    arguments = tuple((spec.name, index) for index, spec in enumerate(specs))
    symbols = {n: (1, None) for spec in specs for n in spec.shape if isinstance(n, str)}
    tree = {"list": list(range(len(results)))}
    return mod, Signature(specs, results, arguments, tree, symbols)


def _check_tables(model: Any) -> None:
    """Every index points at something; the flat buffer itself has no such promise."""
    codes, buffers = model.OperatorCodesLength(), model.BuffersLength()
    if model.SubgraphsLength() < 1:
        raise ImportModelError("it holds no subgraph")
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        tensors = graph.TensorsLength()
        for index in range(tensors):
            tensor = graph.Tensors(index)
            if not 0 <= tensor.Buffer() < buffers:
                raise ImportModelError(f"tensor {index} has no buffer {tensor.Buffer()}")
            tensor_name(graph, index)
            _check_size(model, tensor, index)
        ends = [graph.InputsAsNumpy(), graph.OutputsAsNumpy()]
        for index in range(graph.OperatorsLength()):
            operator = graph.Operators(index)
            if not 0 <= operator.OpcodeIndex() < codes:
                raise ImportModelError(f"operator {index} has no code {operator.OpcodeIndex()}")
            ends += [operator.InputsAsNumpy(), operator.OutputsAsNumpy()]
        for end in ends:
            listed = end.tolist() if isinstance(end, np.ndarray) else []
            if any(not -1 <= n < tensors for n in listed):
                raise ImportModelError(f"subgraph {number} names a tensor that it has not")


def _check_size(model: Any, tensor: Any, index: int) -> None:
    dtype = DTYPES.get(tensor.Type())
    size = model.Buffers(tensor.Buffer()).DataLength()
    shape = tensor.ShapeAsNumpy().tolist() if tensor.ShapeLength() else []
    if any(n < 0 for n in shape):
        raise ImportModelError(f"tensor {index} has the shape {shape}")
    if size and dtype is not None and tensor.Sparsity() is None:
        want = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        if want != size:
            raise ImportModelError(f"tensor {index} of {want} bytes has a buffer of {size}")


def _specs(declared: list[Input], examples: Any, dynamic: Mapping[str, Any]) -> list[TensorSpec]:
    names = [item.name for item in declared]
    for name in dynamic:
        if name not in names:
            raise ImportModelError(
                f"dynamic names the input {name!r}; the model's inputs are: {', '.join(names)}"
            )
    given = by_name(names, examples)
    return [_spec(item, given.get(item.name), dynamic.get(item.name) or {}) for item in declared]


def _spec(item: Input, example: Any, dynamic: Any) -> TensorSpec:
    sizes: list[Dim] = list(item.shape)
    shown = f"({', '.join(str(n) if n != '' else '?' for n in sizes)})"
    if example is not None:
        shape, dtype = [int(n) for n in np.shape(example)], dtype_name(example.dtype)
        if dtype != item.dtype:
            raise ImportModelError(
                f"the example of {item.name!r} is {dtype}, the model takes {item.dtype}"
            )
        if len(shape) != len(sizes) or any(
            n not in ("", m) for n, m in zip(sizes, shape, strict=True)
        ):
            raise ImportModelError(
                f"the example of {item.name!r} has shape {tuple(shape)}, the model takes {shown}",
                shape=shape,
            )
        sizes = list(shape)
    for axis, dim in dict(
        dynamic.items() if isinstance(dynamic, Mapping) else enumerate(dynamic)
    ).items():
        if dim is None:
            continue
        if not isinstance(axis, int) or not -len(sizes) <= axis < len(sizes):
            raise ImportModelError(
                f"dynamic names axis {axis!r} of the input {item.name!r} of rank {len(sizes)}"
            )
        if item.shape[axis] != "":
            raise ImportModelError(
                f"axis {axis} of the input {item.name!r} is fixed at {item.shape[axis]} in the "
                "file: convert the model again with this size open (None)"
            )
        label = dim if isinstance(dim, str) else getattr(dim, "__name__", "")
        if not label.isidentifier():
            raise ImportModelError(f"a dynamic size needs a name like 'batch', got {dim!r}")
        sizes[axis] = label
    missing = [axis for axis, size in enumerate(sizes) if size == ""]
    if missing:
        raise ImportModelError(
            f"the input {item.name!r} is declared as {shown}: give example_inputs, or name its "
            f"open sizes, as dynamic={{{item.name!r}: {{{missing[0]}: 'batch'}}}}"
        )
    return TensorSpec(item.name, tuple(sizes), item.dtype)
