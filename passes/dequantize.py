"""The kernel that turns packed codes back into a weight, and its description.

A quantized weight ``w`` is stored as parameters ``w`` (codes), ``w.scale`` and, where
asymmetric, ``w.zero_point`` (``uint8``), the last two of the weight's rank. Codes of 8 bits
keep the weight's shape (``int8`` symmetric, ``uint8`` asymmetric). Narrower codes are
``uint32`` words ``[rows, words]``: a row for each index of the kept axes (row-major), its
columns the reduced axes (ascending, row-major), ``32 // bits`` codes a word, the first in the
lowest bits, the last word of a row filled up with zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tvm import te, tirx

from burnish.passes.qparams import codes_per_word, symmetric_zero_point

DEQUANTIZE = "burnish.dequantize"


@dataclass(frozen=True)
class CodeLayout:
    """How one weight is stored; equal layouts share a kernel.

    Also the content of the kernel's attribute ``burnish.dequantize``, a map from these field
    names (sequences as lists of integers, ``symmetric`` as 0 or 1, no group as size 0).
    """

    shape: tuple[int, ...]
    dtype: str
    bits: int
    symmetric: bool
    granularity: str
    group_size: int
    group_axis: int
    channel_axis: int
    reduction_axes: tuple[int, ...]
    scale_shape: tuple[int, ...]
    scale_dtype: str

    @property
    def rows(self) -> int:
        return math.prod(n for axis, n in enumerate(self.shape) if axis not in self.reduction_axes)

    @property
    def columns(self) -> int:
        return math.prod(self.shape[axis] for axis in self.reduction_axes)

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of the stored codes."""
        if self.bits == 8:
            return self.shape
        return (self.rows, -(-self.columns // codes_per_word(self.bits)))

    @property
    def code_dtype(self) -> str:
        """Type of the stored codes."""
        if self.bits == 8:
            return "int8" if self.symmetric else "uint8"
        return "uint32"

    def to_attr(self) -> dict[str, Any]:
        """As the kernel's attribute."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {**fields, "symmetric": int(self.symmetric)}

    @classmethod
    def from_attr(cls, attr: Any) -> CodeLayout:
        """The inverse of :meth:`to_attr`."""
        fields: dict[str, Any] = {}
        for key in cls.__dataclass_fields__:
            value = attr[key]
            if key in ("dtype", "granularity", "scale_dtype"):
                fields[key] = str(value)
            elif key in ("shape", "reduction_axes", "scale_shape"):
                fields[key] = tuple(int(n) for n in value)
            else:
                fields[key] = int(value)
        return cls(**{**fields, "symmetric": bool(fields["symmetric"])})


def dequantize_func(layout: CodeLayout) -> tirx.PrimFunc:
    """``(codes, scale[, zero_point]) -> weight``, elementwise, so that it fuses into readers.

    Computes ``(code - zero_point) * scale`` in the scale's type and rounds once to the
    weight's.
    """
    inputs = [
        te.placeholder(_extents(layout.code_shape), layout.code_dtype, name="codes"),
        te.placeholder(_extents(layout.scale_shape), layout.scale_dtype, name="scale"),
    ]
    if not layout.symmetric:
        zero_point = te.placeholder(_extents(layout.scale_shape), "uint8", name="zero_point")
        inputs.append(zero_point)
    weight = te.compute(
        _extents(layout.shape),
        lambda *index: dequantized_value(layout, inputs, index),
        name="dequantize",
    )
    func = te.create_prim_func([*inputs, weight]).without_attr("global_symbol")
    return func.with_attr(DEQUANTIZE, layout.to_attr())


def dequantized_value(
    layout: CodeLayout, inputs: Sequence[te.Tensor], index: Sequence[tirx.Expr]
) -> tirx.Expr:
    """One weight, from the tensors of ``(codes, scale[, zero_point])``."""
    where = _block_index(index, layout)
    zero: Any = symmetric_zero_point(layout.bits)
    if not layout.symmetric:
        zero = inputs[2](*where).astype("int32")
    code = _code(inputs[0], index, layout)
    step = (code - zero).astype(layout.scale_dtype) * inputs[1](*where)
    return step.astype(layout.dtype)


def layout_of(func: object) -> CodeLayout | None:
    """The layout a kernel reads, or ``None`` if it is not one of :func:`dequantize_func`."""
    attrs = getattr(func, "attrs", None)
    if not isinstance(func, tirx.PrimFunc) or attrs is None or DEQUANTIZE not in attrs:
        return None
    return CodeLayout.from_attr(attrs[DEQUANTIZE])


def _extents(shape: Sequence[int]) -> list[tirx.IntImm]:
    # FuseTIR wants the extents of Relax shapes, int64, on both sides of a fused buffer.
    return [tirx.IntImm("int64", n) for n in shape]


def _block_index(index: Sequence[tirx.Expr], layout: CodeLayout) -> list[Any]:
    where: list[Any] = []
    for i, n, s in zip(index, layout.shape, layout.scale_shape, strict=True):
        where.append(0 if s == 1 else i if s == n else i // (n // s))
    return where


def _code(codes: te.Tensor, index: Sequence[tirx.Expr], layout: CodeLayout) -> tirx.Expr:
    if layout.bits == 8:
        return codes(*index).astype("int32")
    kept = [axis for axis in range(len(layout.shape)) if axis not in layout.reduction_axes]
    row = _flatten(index, layout.shape, kept)
    column = _flatten(index, layout.shape, list(layout.reduction_axes))
    per = codes_per_word(layout.bits)
    shift = (column % per * layout.bits).astype("uint32")
    mask = tirx.const(2**layout.bits - 1, "uint32")
    return ((codes(row, column // per) >> shift) & mask).astype("int32")


def _flatten(index: Sequence[tirx.Expr], shape: Sequence[int], axes: Sequence[int]) -> Any:
    flat: Any = tirx.const(0, "int64")
    for axis in axes:
        flat = flat * shape[axis] + index[axis]
    return flat
