"""ONNX models: ModelProto -> module, signature; and its content hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import ModelProto, TensorProto

from burnish.compiler.errors import ImportModelError, UnsupportedOperatorError
from burnish.compiler.importers.examples import by_name
from burnish.compiler.importers.memory import check_memory
from burnish.compiler.importers.onnx.checks import check_valid, graphs_of, tensors_of
from burnish.compiler.importers.onnx.containers import describe, is_container
from burnish.compiler.importers.onnx.external import stays_outside, values, without_outside
from burnish.compiler.importers.onnx.fold import (
    Dim,
    fold,
    inline_functions,
    lift_constants,
    pin,
    run_time_inputs,
    spell_out,
)
from burnish.compiler.importers.onnx.graph import GraphImporter, check_types
from burnish.compiler.importers.onnx.refusals import unknown_nodes
from burnish.compiler.importers.onnx.settings import promotable
from burnish.compiler.importers.onnx.tvm_converters import REFUSED_TYPES
from burnish.compiler.importers.onnx.values import numpy_dtype
from burnish.compiler.importers.tidy import drop_unused
from burnish.compiler.importers.unsupported import unsupported_error
from burnish.compiler.signature import Signature, TensorSpec, dtype_name
from burnish.passes.params import with_params
from burnish.runtime.trees import Node

# Bytes of a model above which it is not handed to shape inference, which copies it.
INFERENCE_LIMIT = 2**30


def import_onnx(
    model: ModelProto,
    example_inputs: Any,
    dynamic: Mapping[str, Any] | None,
    *,
    fold: bool,
) -> tuple[tvm.IRModule, Signature]:
    """Module under the IR convention, and signature, of an ONNX model.

    The outputs are a list, as ONNX Runtime returns them. Raises :class:`ImportModelError` with
    what is wrong and what to do.
    """
    check_memory(model.ByteSize(), copies=4 if fold else 2)
    try:
        check_valid(model)
    except ImportModelError:
        # The checker names the first operator that ONNX does not have, and nothing else.
        strange = [item for item in unknown_nodes(model) if item.reason.startswith("ONNX has")]
        if strange:
            raise unsupported_error("ONNX", unknown_nodes(model)) from None
        raise
    declared = run_time_inputs(model)
    examples = by_name([value.name for value in declared], example_inputs)
    settings = promotable(model.graph)
    constants = {
        name: value
        for name, value in examples.items()
        if isinstance(value, (bool, int, float)) or (isinstance(value, list) and name in settings)
    }
    fixed = {v.name for v in declared if v.name in constants or is_container(v)}
    shapes = _shapes([v for v in declared if v.name not in fixed], examples, dynamic or {})
    ready = pin(inline_functions(model), shapes, constants)
    # ONNX Runtime would name the first of these alone; the import names all, and refused forms.
    unknown = unknown_nodes(ready)
    outside = any(stays_outside(tensor) for tensor in ready.graph.initializer)
    rewrites = not (unknown or outside or _drawing(ready) or _dead_layers(ready, constants))
    if fold and rewrites:
        ready = _fold(ready)
    ready = lift_constants(ready)
    inputs: list[TensorSpec] = []
    nodes: dict[str, Node] = {name: {"const": value} for name, value in constants.items()}
    for v in declared:
        if is_container(v):
            found = describe(v, examples.get(v.name), v.name in examples, len(inputs))
            nodes[v.name] = found[0]
            inputs += found[1]
        elif v.name in shapes:
            nodes[v.name] = len(inputs)
            dtype = numpy_dtype(v.type.tensor_type.elem_type)
            inputs.append(TensorSpec(v.name, shapes[v.name], dtype))
    structures = {v.name: nodes[v.name] for v in declared if is_container(v)}
    importer = GraphImporter(ready, tuple(inputs), structures)
    try:
        mod = importer.module()
    except UnsupportedOperatorError:
        raise
    except ImportModelError:
        if unknown:
            raise unsupported_error("ONNX", unknown) from None
        raise
    if outside:
        ready = without_outside(ready)
    if ready.ByteSize() < INFERENCE_LIMIT:
        check_types(onnx.shape_inference.infer_shapes(spell_out(ready)), importer.values)
    mod = drop_unused(with_params(mod, importer.weights))
    arguments = tuple((v.name, nodes[v.name]) for v in declared)
    outputs = _outputs(mod, importer.outputs)
    symbols: dict[str, tuple[int, int | None]] = {
        n: (1, None) for spec in inputs for n in spec.shape if isinstance(n, str)
    }
    return mod, Signature(tuple(inputs), outputs, arguments, importer.tree, symbols)


_fold = fold


def _drawing(model: ModelProto) -> bool:
    """Whether there is a Bernoulli: ONNX Runtime replaces it by its opposite.

    The body that ONNX's schema gives for it compares the other way round.
    """
    return any(node.op_type == "Bernoulli" for g in graphs_of(model.graph) for node in g.node)


def _dead_layers(model: ModelProto, constants: Mapping[str, Any]) -> bool:
    """Whether a recurrent layer is in a branch that a constant input may rule out.

    ONNX Runtime 1.32 crashes where the sizes of such a layer's input fit only the other branch;
    the import converts the branch taken alone.
    """
    inner = (
        node.op_type for g in graphs_of(model.graph) if g is not model.graph for node in g.node
    )
    return bool(constants) and any(op in ("LSTM", "GRU", "RNN") for op in inner)


def _shapes(
    declared: Sequence[onnx.ValueInfoProto],
    examples: Mapping[str, Any],
    dynamic: Mapping[str, Any],
) -> dict[str, tuple[Dim, ...]]:
    """Every input's shape: dynamic sizes by name, the others from the example or declaration."""
    names = [value.name for value in declared]
    for name in dynamic:
        if name not in names:
            raise ImportModelError(
                f"dynamic names the input {name!r}; the model's inputs are: {', '.join(names)}"
            )
    shapes = {}
    for value in declared:
        kind = value.type.WhichOneof("value")
        if kind == "tensor_type" and value.type.tensor_type.elem_type == TensorProto.STRING:
            raise ImportModelError(
                f"the input {value.name!r} holds strings, for which TVM has no type: make numbers "
                "of them before the model, and leave its string operators out"
            )
        if kind != "tensor_type" or value.type.tensor_type.elem_type in REFUSED_TYPES:
            raise ImportModelError(f"the input {value.name!r} is no tensor of numbers ({kind})")
        shapes[value.name] = _shape(value, examples.get(value.name), dynamic.get(value.name) or {})
    return shapes


def _shape(
    value: onnx.ValueInfoProto, example: Any, dynamic: Mapping[int, Any] | Sequence[Any]
) -> tuple[Dim, ...]:
    tensor = value.type.tensor_type
    open_dims = dict(dynamic.items() if isinstance(dynamic, Mapping) else enumerate(dynamic))
    sizes: list[Dim | None] = [d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim]
    if example is not None:
        if not hasattr(example, "shape"):
            raise ImportModelError(
                f"the example of {value.name!r} must be an array, got {type(example).__name__}"
            )
        given, want = dtype_name(example.dtype), numpy_dtype(tensor.elem_type)
        if given != want:
            raise ImportModelError(
                f"the example of {value.name!r} is {given}, the model takes {want}"
            )
        shape = [int(n) for n in example.shape]
        fits = not tensor.HasField("shape") or (
            len(shape) == len(sizes)
            and all(size in (None, n) for size, n in zip(sizes, shape, strict=True))
        )
        if not fits:
            raise ImportModelError(
                f"the example of {value.name!r} has shape {tuple(shape)}, the model takes "
                f"{_declared(value)}",
                shape=shape,
            )
        sizes = list(shape)
    elif not tensor.HasField("shape"):
        raise ImportModelError(
            f"the input {value.name!r} has no declared rank: give example_inputs"
        )
    for axis, dim in open_dims.items():
        if dim is None:
            continue
        if not isinstance(axis, int) or not -len(sizes) <= axis < len(sizes):
            raise ImportModelError(
                f"dynamic names axis {axis!r} of the input {value.name!r} of rank {len(sizes)}"
            )
        label = dim if isinstance(dim, str) else getattr(dim, "__name__", "")
        if not label.isidentifier():
            raise ImportModelError(f"a dynamic size needs a name like 'batch', got {dim!r}")
        sizes[axis] = label
    missing = [axis for axis, size in enumerate(sizes) if size is None]
    if missing:
        raise ImportModelError(
            f"the input {value.name!r} is declared as {_declared(value)}: give example_inputs, or "
            f"name its open sizes, as dynamic={{{value.name!r}: {{{missing[0]}: 'batch'}}}}"
        )
    return tuple(size for size in sizes if size is not None)


def _declared(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return f"({', '.join(str(d.dim_value or d.dim_param or '?') for d in dims)})"


def _outputs(mod: tvm.IRModule, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    fields = mod["main"].ret_ty.fields
    return tuple(
        TensorSpec(
            name,
            tuple(int(n) if hasattr(n, "value") else str(n) for n in ty.shape or "?" * ty.ndim),
            str(ty.dtype),
        )
        for name, ty in zip(names, fields, strict=True)
    )


def proto_hash(model: ModelProto) -> str:
    """sha256 over the model without its tensors, then each tensor's name and bytes."""
    digest = hashlib.sha256()
    bare = ModelProto()
    bare.CopyFrom(model)
    for tensor in tensors_of(bare.graph):
        tensor.ClearField("raw_data")
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    digest.update(bare.SerializeToString(deterministic=True))
    for tensor in tensors_of(model.graph):
        digest.update(tensor.name.encode())
        if stays_outside(tensor):
            digest.update(values(tensor).reshape(-1).view(np.uint8).data)
        else:
            digest.update(tensor.raw_data)
    return digest.hexdigest()
