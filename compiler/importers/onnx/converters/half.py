"""Sums of float16, taken in float32: TVM sums in the type of the inputs."""

from __future__ import annotations

from dataclasses import replace

from burnish.compiler.importers.onnx import tvm_converters
from burnish.compiler.importers.onnx.emit import astype
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Result, converts


@converts("Conv")
@converts("Gemm")
@converts("LogSoftmax")
@converts("MatMul")
@converts("Softmax")
def summed(node: Node) -> Result:
    if node.dtype() != "float16":
        return None
    wide = [None if x is None else node.emit(astype(x, "float32")) for x in node.inputs]
    made = tvm_converters.convert(replace(node, inputs=wide))
    return astype(node.emit(made), "float16")
