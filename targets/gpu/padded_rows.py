"""Rows in memory of which each is longer than its content, so that columns lie in all banks."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx import Stmt

from burnish.targets.cpu import loops


class PaddedRows:
    """``rows`` of ``stride`` elements; in one axis, for TVM would take padding off."""

    def __init__(
        self, name: str, rows: int, stride: int, dtype: str = "float32", scope: str = "shared"
    ) -> None:
        self.stride = stride
        self.buffer = tirx.decl_buffer((rows * stride,), dtype, name, scope=scope)

    def at(self, row: Any, column: Any) -> Expr:
        return self.buffer[(row * self.stride + column,)]

    def put(self, row: Any, column: Any, value: Expr) -> Stmt:
        return loops.store(self.buffer, value, [row * self.stride + column])
