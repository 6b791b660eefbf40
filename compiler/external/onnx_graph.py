"""An ONNX graph as it is written: nodes, initializers, and the name of each value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

DTYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
"""Types of Relax that can be written, and ONNX's numbers for them."""


class Graph:
    """Nodes and initializers as they are written, and the name of each value."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.names: dict[relax.Var, str] = {}
        self._count = 0

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Write a node of one output; its name."""
        self._count += 1
        out = f"v{self._count}"
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **given))
        return out

    def constant(self, value: np.ndarray) -> str:
        """Write an initializer; its name."""
        self._count += 1
        name = f"c{self._count}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, values: Sequence[int]) -> str:
        return self.constant(np.array(list(values), "int64"))

    def number(self, value: float, dtype: str) -> str:
        """A scalar of a float type."""
        raw = np.array(value, "float32").tolist()
        return self._scalar(raw, dtype)

    def _scalar(self, value: float, dtype: str) -> str:
        self._count += 1
        name = f"c{self._count}"
        self.initializers.append(helper.make_tensor(name, DTYPES[dtype], [], [value]))
        return name

    def read(self, expr: relax.Expr) -> str:
        """The name of an operand."""
        if isinstance(expr, relax.Var):
            return self.names[expr]
        if isinstance(expr, tvm.ir.Constant) and isinstance(expr.value, tvm.runtime.Tensor):
            return self.constant(expr.value.numpy())
        raise ValueError(f"no tensor: {expr}")
