"""Running sums and products as kernels that say what they are."""

from __future__ import annotations

from typing import Any

from tvm import relax, te, tirx
from tvm.ir import Expr

SCAN = "burnish.scan"
"""Attribute of the kernel: ``axis``, ``kind`` ("sum", "prod") and ``exclusive`` (0, 1)."""
OPAQUE = 8


def scan(axis: int, kind: str, exclusive: bool, dtype: str) -> Any:
    """``x [..., N, ...] -> out``, defined as a sum over all earlier elements for each one.

    That is quadratic: a target has a rule for kernels with the attribute, or pays for it.
    """

    def make(x: te.Tensor) -> te.Tensor:
        k = te.reduce_axis((0, x.shape[axis]), "k")
        neutral = tirx.const(1 if kind == "prod" else 0, dtype)
        if kind == "prod":
            fold = te.comm_reducer(lambda a, b: a * b, lambda t: tirx.const(1, t), name="prod")
        else:
            fold = te.sum

        def element(*at: Any) -> Expr:
            value = x(*at[:axis], k, *at[axis + 1 :]).astype(dtype)
            earlier = k < at[axis] if exclusive else k <= at[axis]
            return fold(tirx.Select(earlier, value, neutral), axis=k)

        return te.compute(x.shape, element, name="scan")

    return make


def lower_scan(builder: relax.BlockBuilder, call: relax.Call, kind: str, out: Any) -> relax.Expr:
    """A kernel for ``cumsum`` or ``cumprod``; without an axis, over all elements in order."""
    x, attrs = call.args[0], call.attrs
    axis: int | None = None if attrs.axis is None else int(attrs.axis) % max(int(x.ty.ndim), 1)
    if axis is None or int(x.ty.ndim) == 0:
        total = tirx.const(1, "int64")
        for extent in x.ty.shape:
            total = total * extent
        x, axis = builder.emit(relax.op.reshape(x, relax.ShapeExpr([total]))), 0
    exclusive, dtype = bool(attrs.exclusive), str(out.dtype)
    return builder.call_te(
        scan(axis, kind, exclusive, dtype),
        x,
        primfunc_name_hint=f"cum{kind}",
        primfunc_attrs={
            "op_pattern": OPAQUE,
            SCAN: {"axis": axis, "kind": kind, "exclusive": int(exclusive)},
        },
    )
