"""ONNX files: read with their external data, and checked by ONNX's own checker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_tensor

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.contained import grant
from burnish.compiler.importers.memory import check_memory
from burnish.compiler.importers.onnx.external import (
    LEAST,
    leave_outside,
    stays_outside,
    tensor_bytes,
    without_outside,
)

CHECKER_LIMIT = 2**31 - 1


def load_onnx(file: Path) -> ModelProto:
    """The model in a file, with external data read from the file's own folder only.

    Raises :class:`ImportModelError` for a file that is truncated or something else, and for
    external data that is missing or lies outside the folder.
    """
    try:
        model = onnx.load_model(str(file), format="protobuf", load_external_data=False)
    except Exception as error:
        raise ImportModelError(f"{file} is no ONNX model, or is truncated: {error}") from error
    if not model.HasField("graph") or not model.opset_import:
        raise ImportModelError(f"{file} is no ONNX model: it holds no graph or no operator set")
    folder, external = file.resolve().parent, 0
    found: list[tuple[TensorProto, Path]] = []
    for tensor in tensors_of(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        data = (folder / location).resolve()
        if not location or not data.is_relative_to(folder):
            raise ImportModelError(
                f"{file}: the external data of {tensor.name!r} is at {location!r}, outside the "
                "model's folder"
            )
        if not data.is_file():
            raise ImportModelError(
                f"{file}: the external data file {location!r} of {tensor.name!r} is missing"
            )
        external += int(entries.get("length", 0))
        found.append((tensor, data))
    if external:
        check_memory(external, copies=3)
        grant(3 * external)
        if external >= LEAST:
            initial = {id(tensor) for tensor in model.graph.initializer}
            for tensor, data in found:
                if id(tensor) in initial:
                    leave_outside(tensor, data)
        inside = sum(tensor_bytes(t) for t, _ in found if not stays_outside(t))
        if inside >= CHECKER_LIMIT:
            raise ImportModelError(
                f"{file}: external data of {inside / 2**30:.1f} GiB would have to be part of the "
                "model, which holds 2 GB: it belongs to tensors in nodes, to tensors below 1 MiB, "
                "or to types other than floats and whole bytes; make initializers of it"
            )
        try:
            for tensor, _ in found:
                if not stays_outside(tensor):
                    load_external_data_for_tensor(tensor, str(folder))
                    tensor.data_location = TensorProto.DEFAULT
                    del tensor.external_data[:]
        except Exception as error:
            raise ImportModelError(f"{file}: external data cannot be read: {error}") from error
    return model


def check_valid(model: ModelProto) -> None:
    """ONNX's own checker, and that the weights are in the model."""
    for tensor in tensors_of(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL and not stays_outside(tensor):
            raise ImportModelError(
                f"the weight {tensor.name!r} lies in an external file: pass the path of the model"
            )
    if model.ByteSize() >= CHECKER_LIMIT:
        return
    if any(stays_outside(tensor) for tensor in model.graph.initializer):
        model = without_outside(model)
    try:
        bare = [
            index
            for index, out in enumerate(model.graph.output)
            if out.type.HasField("tensor_type") and not out.type.tensor_type.HasField("shape")
        ]
        if bare:
            # The checker wants output shapes, which exporters leave out and no runtime needs.
            copy = ModelProto()
            copy.CopyFrom(model)
            for index in bare:
                copy.graph.output[index].type.tensor_type.shape.SetInParent()
            model = copy
        onnx.checker.check_model(model)
    except Exception as error:
        raise ImportModelError(f"the ONNX checker refuses the model: {error}") from error


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all graphs inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from graphs_of(attribute.g)
            for inner in attribute.graphs:
                yield from graphs_of(inner)


def tensors_of(graph: GraphProto) -> Iterator[TensorProto]:
    """Initializers and tensor attributes, of inner graphs too."""
    for inner in graphs_of(graph):
        yield from inner.initializer
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield attribute.t
