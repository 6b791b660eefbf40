"""The operators of a TFLite model and their FLOPs, for a survey."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from burnish.compiler.importers.survey import Work
from burnish.compiler.importers.tflite.schema import operator_name, tensor_name

FREE = {
    *("CALL_ONCE", "CAST", "CONCATENATION", "DEPTH_TO_SPACE", "EXPAND_DIMS", "FILL", "GATHER"),
    *("GATHER_ND", "IF", "PACK", "PAD", "PADV2", "RESHAPE", "REVERSE_V2", "SELECT", "SELECT_V2"),
    *("SHAPE", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE"),
    *("TRANSPOSE", "UNPACK", "WHILE", "ZEROS_LIKE"),
}


def work_of(content: Any, example_inputs: Any) -> Iterator[Work]:
    """One :class:`Work` an operator of every subgraph; open sizes count as the file's own."""
    model = content.model
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        for index in range(graph.OperatorsLength()):
            operator = graph.Operators(index)
            name, version = operator_name(model, operator)
            outputs = operator.OutputsAsNumpy() if operator.OutputsLength() else []
            node = tensor_name(graph, int(outputs[0])) if len(outputs) else f"{number}:{index}"
            yield Work(name, node, _flops(name, graph, operator), "tflite", version)


def _flops(name: str, graph: Any, operator: Any) -> int:
    given = [_shape(graph, i) for i in _indices(operator.InputsAsNumpy())]
    made = [_shape(graph, i) for i in _indices(operator.OutputsAsNumpy())]
    out = math.prod(made[0]) if made else 0
    if name in FREE or not given:
        return 0
    if name in ("CONV_2D", "FULLY_CONNECTED"):
        return 2 * out * math.prod(given[1][1:])
    if name == "DEPTHWISE_CONV_2D":
        return 2 * out * math.prod(given[1][1:3])
    if name == "TRANSPOSE_CONV":
        return 2 * math.prod(given[2]) * math.prod(given[1][:3])
    if name == "BATCH_MATMUL":
        return 2 * out * given[0][-1]
    if name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        units = math.prod(given[3]) + math.prod(given[7])
        return 8 * math.prod(given[0][:2]) * units
    return out


def _shape(graph: Any, index: int) -> list[int]:
    if index < 0:
        return []
    tensor = graph.Tensors(index)
    return [int(n) for n in tensor.ShapeAsNumpy()] if tensor.ShapeLength() else []


def _indices(listed: Any) -> list[int]:
    return [int(n) for n in listed] if isinstance(listed, np.ndarray) else []
