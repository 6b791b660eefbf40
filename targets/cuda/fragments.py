"""Where tensor cores want the elements of small matrices: in which thread, in which register.

A warp multiplies ``A [16, depth]`` and ``B [16, depth]`` (``B`` by columns of the product) into
``C [16, 16]``; ``depth`` is 32 bytes: 16 of a two-byte float, 32 of int8, 8 of float32 rounded to
tf32. Registers of 4 bytes hold ``v`` elements. By the tables of NVIDIA's PTX manual ("Matrix
Fragments for mma.m16n8k16" and the like), lo and hi being halves of depth:

1. ``A``: thread ``4 (row % 8) + k % 4v / v``; registers (rows 0-7, lo), (8-15, lo), (0-7, hi),
   (8-15, hi).
2. ``B``: the same of columns; registers (columns 0-7, lo), (0-7, hi), (8-15, lo), (8-15, hi).
3. ``C``: thread ``4 (row % 8) + column % 8 / 2``; pairs of columns (0-7 of rows 0-7), (0-7 of rows
   8-15), then columns 8-15.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WARP, SIZE = 32, 16


@dataclass(frozen=True)
class Step:
    """One instruction of a product: its shape, and where in a thread's registers its operands
    begin, in elements."""

    shape: str
    a: int
    b: int
    c: int


@dataclass(frozen=True)
class Matrix:
    """Products of ``dtype`` on an architecture; ``float32`` stands for tf32."""

    dtype: str
    capability: int

    @property
    def bytes(self) -> int:
        return {"float16": 2, "bfloat16": 2, "int8": 1, "float32": 4}[self.dtype]

    @property
    def sums(self) -> str:
        """What products are summed in."""
        return "int32" if self.dtype == "int8" else "float32"

    @property
    def register(self) -> int:
        """Elements of a register."""
        return 4 // self.bytes

    @property
    def vector(self) -> int:
        """Elements of 16 bytes."""
        return 16 // self.bytes

    @property
    def depth(self) -> int:
        return 2 * self.vector

    @property
    def held(self) -> int:
        """Elements of an operand that a thread holds."""
        return SIZE * self.depth // WARP

    @property
    def turns(self) -> bool:
        """Whether ``ldmatrix`` turns a ``B`` that has its columns last."""
        return self.bytes == 2

    def steps(self) -> tuple[Step, ...]:
        """The instructions of one product, in order."""
        v = self.register
        shapes = {
            ("float16", True): "m16n8k8",
            ("int8", True): "m8n8k16",
            ("float32", False): "m16n8k8",
            ("int8", False): "m16n8k32",
        }
        shape = shapes.get((self.dtype, self.capability < 80), "m16n8k16")
        if shape == "m8n8k16":
            return tuple(
                Step(shape, v * (2 * half + down), v * (2 * across + half), 4 * across + 2 * down)
                for across in range(2)
                for down in range(2)
                for half in range(2)
            )
        if self.capability < 80:
            return tuple(
                Step(shape, 2 * v * half, v * (2 * across + half), 4 * across)
                for across in range(2)
                for half in range(2)
            )
        return tuple(Step(shape, 0, 2 * v * across, 4 * across) for across in range(2))

    def place_a(self, row: Any, k: Any) -> tuple[Any, Any]:
        """Part 1: thread and element."""
        v = self.register
        thread = 4 * (row % 8) + k % (4 * v) // v
        return thread, 2 * v * (k // (4 * v)) + v * (row // 8) + k % v

    def place_b(self, column: Any, k: Any) -> tuple[Any, Any]:
        """Part 2."""
        v = self.register
        thread = 4 * (column % 8) + k % (4 * v) // v
        return thread, 2 * v * (column // 8) + v * (k // (4 * v)) + k % v

    def source_a(self, thread: Any, stride: Any) -> Any:
        """Offset of the row of 16 bytes that a thread names for ``ldmatrix``, in elements."""
        return stride * (thread % 16) + self.vector * (thread // 16)

    def source_b(self, thread: Any, stride: Any, columns_last: bool) -> Any:
        if columns_last:
            return stride * (thread % 16) + self.vector * (thread // 16)
        return stride * (8 * (thread // 16) + thread % 8) + self.vector * (thread % 16 // 8)


def place_c(row: Any, column: Any) -> tuple[Any, Any]:
    """Part 3."""
    return 4 * (row % 8) + column % 8 // 2, 4 * (column // 8) + 2 * (row // 8) + column % 2


def element_c(thread: Any, element: Any) -> tuple[Any, Any]:
    """Row and column of what a thread has in an element: :func:`place_c` the other way."""
    return (
        8 * (element % 4 // 2) + thread // 4,
        8 * (element // 4) + thread % 4 * 2 + element % 2,
    )
