"""Inputs that set a shape or an attribute: the only ones whose values are read at import.

The rule: an initializer at a position of SETTINGS or FIXED is a constant. A graph input that is
used at positions of SETTINGS alone becomes a constant where the caller gives its value at import as
a plain number or a list of numbers; an array there leaves it an input. Every other initializer of
floats or bytes with more than one element is a weight, a parameter of the module, and every other
graph input stays an input of the compiled model. (A plain number given for a scalar input fixes
that input, wherever it is used: the caller asks for it.)
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from burnish.compiler.importers.onnx.checks import graphs_of
from burnish.compiler.importers.onnx.registry import STANDARD

# Operator of ai.onnx -> positions of inputs that are settings.
SETTINGS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "Loop": (0, 1),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "NonMaxSuppression": (2,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceLogSum": (1,),
    "ReduceLogSumExp": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "SequenceAt": (1,),
    "SequenceErase": (1,),
    "SequenceInsert": (2,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "SplitToSequence": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}

# Positions of inputs that may change from call to call, but are written into the code where they
# are initializers.
FIXED: dict[str, tuple[int, ...]] = {
    "Clip": (1, 2),
    "DequantizeLinear": (1, 2),
    "NonMaxSuppression": (3, 4),
    "OneHot": (2,),
    "Pad": (2,),
    "QuantizeLinear": (1, 2),
}


def settings_of(graphs: Iterator[onnx.GraphProto], *tables: dict[str, tuple[int, ...]]) -> set[str]:
    """Names that some node of these graphs takes at a position of these tables."""
    return {
        node.input[position]
        for graph in graphs
        for node in graph.node
        for table in tables
        for position in table.get(node.op_type, ())
        if position < len(node.input) and node.input[position]
    }


def promotable(graph: onnx.GraphProto) -> set[str]:
    """The graph inputs that are used at positions of SETTINGS alone."""
    elsewhere = {value.name for value in graph.output}
    taken: set[str] = set()
    for inner in graphs_of(graph):
        for node in inner.node:
            for position, name in enumerate(node.input):
                at = position in SETTINGS.get(node.op_type, ()) and node.domain in STANDARD
                (taken if at else elsewhere).add(name)
    return {value.name for value in graph.input} & taken - elsewhere
