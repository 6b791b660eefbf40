"""Inputs that set a shape or an attribute: the only ones whose values are read at import.

The rule: an initializer at a position of SETTINGS or FIXED is a constant. A graph input that is
used at positions of SETTINGS alone, or in ARITHMETIC whose results are, becomes a constant where
the caller gives its value at import as a plain number or a list of numbers; an array there leaves
it an input. Every other initializer of
floats or bytes with more than one element is a weight, a parameter of the module, and every other
graph input stays an input of the compiled model. (A plain number given for a scalar input fixes
that input, wherever it is used: the caller asks for it.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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


# What is computed of sizes, and the position of what others take a part of.
ARITHMETIC = {
    *("Abs", "Add", "Cast", "Ceil", "Concat", "Div", "Floor", "Identity", "Max", "Min", "Mul"),
    *("Neg", "Sub"),
}
PARTS = {("Gather", 0), ("Slice", 0), ("Squeeze", 0), ("Unsqueeze", 0)}


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
    """The graph inputs that end at positions of SETTINGS alone, some by way of arithmetic."""
    results = {value.name for inner in graphs_of(graph) for value in inner.output}
    uses: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for inner in graphs_of(graph):
        for node in inner.node:
            for position, name in enumerate(node.input):
                uses.setdefault(name, []).append((node, position))
    found: dict[str, bool | None] = {}

    def only_sets(name: str) -> bool | None:
        """Whether all a value does is to set something; None for one that is never used."""
        if name not in found:
            found[name] = False  # in a model with a cycle, which is refused later
            ends = [_ends(node, position, only_sets) for node, position in uses.get(name, ())]
            said = [end for end in ends if end is not None]
            found[name] = False if name in results else all(said) if said else None
        return found[name]

    return {value.name for value in graph.input if only_sets(value.name)}


def _ends(
    node: onnx.NodeProto, position: int, only_sets: Callable[[str], bool | None]
) -> bool | None:
    """Whether a node makes a setting of its input at this position, itself or further on."""
    if node.domain not in STANDARD:
        return False
    if position in SETTINGS.get(node.op_type, ()):
        return True
    if node.op_type not in ARITHMETIC and (node.op_type, position) not in PARTS:
        return False
    said = [end for name in node.output if (end := only_sets(name)) is not None]
    return all(said) if said else None
