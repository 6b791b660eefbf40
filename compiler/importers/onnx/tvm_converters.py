"""TVM's own converters: which of them are used, for which forms, and how they are called."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter, _get_convert_map, onnx_input

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import STANDARD, Refused

# TVM looks converters up by name alone; these names mean com.microsoft's operator there.
CONTRIB = {
    "Attention",
    "BiasGelu",
    "EmbedLayerNormalization",
    "FastGelu",
    "SkipLayerNormalization",
}
NOT_ONNX = {"AllClassNMS", "MatMulInteger16"}
# One result that is itself a tuple: a sequence.
SEQUENCES = {
    "ConcatFromSequence",
    "Optional",
    "OptionalGetElement",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SplitToSequence",
}
# Element types that have no form in TVM.
REFUSED_TYPES = {
    value
    for name, value in TensorProto.DataType.items()
    if name.startswith(("FLOAT6", "COMPLEX", "STRING"))
}


@functools.cache
def _names() -> frozenset[str]:
    return frozenset({*_get_convert_map()} - CONTRIB - NOT_ONNX)


def has_converter(op: str, domain: str) -> bool:
    """Whether TVM converts this operator of this domain."""
    if domain == "com.microsoft":
        return op in CONTRIB
    return domain in STANDARD and op in _names()


def convert(node: Node) -> Any:
    """The result of TVM's converter, in the form our own give it.

    Raises :class:`Refused` for forms that are known to come out wrong.
    """
    reason = wrong_form(node)
    if reason is not None:
        raise Refused(reason)
    attrs = ONNXGraphImporter({}, None)._parse_attr(node.proto.attribute)
    attrs["tvm_custom"] = {"name": node.name, "num_outputs": len(node.outputs)}
    inputs = onnx_input(node.graph.as_shapes(node))
    converter = _get_convert_map()[node.op].get_converter(node.version)
    # TVM prints the inputs of a failing node to stdout; the error says which it was.
    with contextlib.redirect_stdout(io.StringIO()):
        result = converter(node.bb, inputs, attrs, [node.graph.values, {}])
    if isinstance(result, relax.Tuple) and node.op not in SEQUENCES:
        return tuple(result.fields)
    if not isinstance(result, relax.Expr):
        return result
    result = node.bb.normalize(result)
    if isinstance(result.ty, relax.TupleType) and node.op not in SEQUENCES:
        bound = node.emit(result)
        return tuple(node.emit(relax.TupleGetItem(bound, i)) for i in range(len(result.ty.fields)))
    return result


def wrong_form(node: Node) -> str | None:
    """Why TVM's converter must not be used for this node; None where it may."""
    rule = _WRONG.get(node.op)
    return None if rule is None else rule(node)


def _layer_norm(node: Node) -> str | None:
    if node.wants(1) or node.wants(2):
        return "its mean and deviation outputs come out wrong: use only the first output"
    return None


def _batch_norm(node: Node) -> str | None:
    if node.attrs.get("training_mode") or any(node.wants(i) for i in range(1, 5)):
        return "training mode: export the model for inference"
    return None


def _dropout(node: Node) -> str | None:
    training = node.input(2) is not None and (
        (value := node.value(2)) is None or bool(np.any(value))
    )
    if node.wants(1) or training:
        return "training mode or its mask: export the model for inference"
    return None


def _roi_align(node: Node) -> str | None:
    return "mode=max comes out wrong" if node.attrs.get("mode", "avg") == "max" else None


def _conv_transpose(node: Node) -> str | None:
    return "output_shape comes out wrong: give pads" if "output_shape" in node.attrs else None


def _space_to_depth(node: Node) -> str | None:
    return "mode=CRD comes out wrong" if node.attrs.get("mode", "DCR") == "CRD" else None


def _top_k(node: Node) -> str | None:
    return "uint64 cannot be sorted: cast to int64" if node.dtype() == "uint64" else None


# Operator -> the forms in which TVM's converter is wrong. A converter of ours for such a form
# comes first, and makes its rule here unnecessary.
_WRONG: dict[str, Callable[[Node], str | None]] = {
    "BatchNormalization": _batch_norm,
    "ConvTranspose": _conv_transpose,
    "Dropout": _dropout,
    "LayerNormalization": _layer_norm,
    "RoiAlign": _roi_align,
    "SpaceToDepth": _space_to_depth,
    "TopK": _top_k,
}
