"""If: the branch taken is computed, the other is not."""

from __future__ import annotations

from tvm import relax

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Result, converts


@converts("If")
def if_(node: Node) -> Result:
    """Both branches as sequences of their own; several outputs are a tuple."""
    then = node.graph.branch(node.attrs["then_branch"], {})
    other = node.graph.branch(node.attrs["else_branch"], {})
    result = node.emit(relax.If(node.inputs[0], then, other))
    if len(node.outputs) == 1:
        return result
    return tuple(node.emit(relax.TupleGetItem(result, i)) for i in range(len(node.outputs)))
