"""What an ONNX model may hold: read, checked, and refused by name where it would come out wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)
from tvm.relax.frontend.onnx.onnx_frontend import _get_convert_map

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.memory import check_memory
from burnish.compiler.importers.unsupported import unsupported_error

STANDARD = ("", "ai.onnx")
# TVM looks converters up by name alone; these names mean com.microsoft's operator there.
CONTRIB = {
    "Attention",
    "BiasGelu",
    "EmbedLayerNormalization",
    "FastGelu",
    "SkipLayerNormalization",
}
NOT_ONNX = {"AllClassNMS", "MatMulInteger16"}
CHECKER_LIMIT = 2**31 - 1

# Element types that TVM 0.27 computes wrongly (8-bit floats) or cannot lay out.
REFUSED_TYPES = {
    value
    for name, value in TensorProto.DataType.items()
    if name.startswith(("FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2", "COMPLEX", "STRING"))
}


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
    if external:
        check_memory(external, copies=3)
        try:
            onnx.load_external_data_for_model(model, str(folder))
        except Exception as error:
            raise ImportModelError(f"{file}: external data cannot be read: {error}") from error
    return model


def check_valid(model: ModelProto) -> None:
    """ONNX's own checker, and that the weights are in the model."""
    for tensor in tensors_of(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ImportModelError(
                f"the weight {tensor.name!r} lies in an external file: pass the path of the model"
            )
    if model.ByteSize() >= CHECKER_LIMIT:
        return
    try:
        if any(not o.type.tensor_type.HasField("shape") for o in model.graph.output):
            # The checker wants output shapes, which exporters leave out and no runtime needs.
            copy = ModelProto()
            copy.CopyFrom(model)
            for out in copy.graph.output:
                out.type.tensor_type.shape.SetInParent()
            model = copy
        onnx.checker.check_model(model)
    except Exception as error:
        raise ImportModelError(f"the ONNX checker refuses the model: {error}") from error


def check_supported(model: ModelProto) -> None:
    """Every operator without a converter, or known to come out wrong, in one error."""
    found: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    constants = {t.name: t for t in tensors_of(model.graph)}
    used = {name for graph in graphs_of(model.graph) for node in graph.node for name in node.input}
    used |= {out.name for graph in graphs_of(model.graph) for out in graph.output}
    for graph in graphs_of(model.graph):
        for node in graph.node:
            reason = _refusal(node, constants, used)
            if reason is not None:
                name = f"{node.domain or 'ai.onnx'}.{node.op_type}"
                found.setdefault(name, []).append(node.name or (node.output or [""])[0])
                if reason:
                    reasons[name] = reason
    if found:
        raise unsupported_error("ONNX", found, reasons)


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


def _refusal(node: NodeProto, constants: dict[str, TensorProto], used: set[str]) -> str | None:
    """None where the node can be imported; else why not ("": no converter)."""
    name, attrs = node.op_type, {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.domain not in STANDARD:
        known = node.domain == "com.microsoft" and name in CONTRIB
        return None if known else f"operators of the domain {node.domain!r} have no converter"
    converters = {*_get_convert_map(), "If"} - CONTRIB - NOT_ONNX
    if name not in converters:
        return ""
    extra = [out for out in node.output[1:] if out in used]
    if name == "LayerNormalization" and extra:
        return "its mean and deviation outputs come out wrong: use only the first output"
    if name == "BatchNormalization" and (attrs.get("training_mode") or extra):
        return "training mode: export the model for inference"
    if name == "Dropout" and (extra or _is_true(node, 2, constants)):
        return "training mode or its mask: export the model for inference"
    if name in ("Cast", "CastLike") and attrs.get("to") in REFUSED_TYPES:
        return f"the type {TensorProto.DataType.Name(attrs['to'])} comes out wrong"
    both = attrs.get("detect_negative", 1) and attrs.get("detect_positive", 1)
    if name == "IsInf" and not both:
        return "one-sided detection comes out wrong"
    if name == "RoiAlign" and attrs.get("mode", b"avg") == b"max":
        return "mode=max comes out wrong"
    if name == "ConvTranspose" and "output_shape" in attrs:
        return "output_shape comes out wrong: give pads"
    if name == "SpaceToDepth" and attrs.get("mode", b"DCR") == b"CRD":
        return "mode=CRD comes out wrong"
    for item in node.input:
        if item in constants and constants[item].data_type in REFUSED_TYPES:
            kind = TensorProto.DataType.Name(constants[item].data_type)
            return f"tensors of type {kind} have no form in TVM"
    return None


def _is_true(node: NodeProto, index: int, constants: dict[str, TensorProto]) -> bool:
    if len(node.input) <= index or not node.input[index]:
        return False
    value = constants.get(node.input[index])
    return value is None or bool(np.any(numpy_helper.to_array(value)))
