"""Recurrent layers (LSTM, GRU, plain RNN) as one kernel that says what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax, tirx

from burnish.targets.cpu import recurrence
from burnish.targets.recurrence_form import GATES, RECURRENCE, Cell

_OPAQUE = 8
_VECTOR = 16
_FEW_ROWS = 2


def panel_width(kind: str, units: int, batch: int | None) -> int:
    """Units of a panel, a multiple of 16: sums of one row, or of several, fill the registers."""
    widest = 32 if kind != "RNN" else 64
    if batch is None or batch > _FEW_ROWS:
        widest //= 2
    return min(widest, -(-units // _VECTOR) * _VECTOR)


def call_recurrence(
    builder: relax.BlockBuilder, cell: Cell, operands: Sequence[relax.Expr]
) -> relax.Expr:
    """All steps of one direction of a layer: ``(y [T, B, H], h [B, H])``, of an LSTM ``c`` too.

    The operands are those that :mod:`burnish.targets.recurrence_form` lists, in its order. The
    kernel's body is plain loops, which any target can run; its attribute tells a target with a
    rule for recurrences what it is. Raises ``ValueError`` for operands of other shapes.
    """
    x, r = operands[0].ty, operands[1].ty
    panels, units, gates, width = (int(n) for n in r.shape)
    padded = panels * width
    if [_number(n) for n in list(x.shape)[2:]] != [gates, padded] or gates != GATES[cell.kind]:
        raise ValueError(f"x {x.shape} and r {r.shape} are not those of one {cell.kind}")
    dtype = str(x.dtype)
    symbols: dict[Any, tirx.Var] = {}

    def size(n: Any) -> Any:
        known = _number(n)
        if known is not None:
            return tirx.const(known, "int64")
        return symbols.setdefault(str(n), tirx.Var(f"n{len(symbols)}", "int64"))

    steps, batch = (size(n) for n in list(x.shape)[:2])
    shapes: list[tuple[list[Any], str, str]] = [
        ([steps, batch, gates, padded], dtype, "x"),
        ([panels, units, gates, width], dtype, "r"),
    ]
    shapes += [([padded], dtype, "rb")] * cell.after
    shapes += [([3, padded], dtype, "p")] * cell.peepholes
    hidden = units
    if cell.projected:
        w = [int(n) for n in operands[len(shapes)].ty.shape]
        if cell.kind != "LSTM" or w[2] != 1 or not w[1] <= padded or not units <= w[0] * w[3]:
            raise ValueError(f"projections of shape {w} do not make {units} states of {cell}")
        hidden = w[1]
        shapes.append((w, dtype, "w"))
    states = 2 if cell.kind == "LSTM" else 1
    shapes += [([batch, units], dtype, "h0"), ([batch, hidden], dtype, "c0")][:states]
    shapes += [([batch], "int32", "lengths")] * cell.lengths
    inputs = len(shapes)
    if len(operands) != inputs:
        raise ValueError(f"{cell} takes {inputs} operands, got {len(operands)}")
    shapes += [([steps, batch, units], dtype, "y"), ([batch, units], dtype, "h")]
    shapes += [([batch, hidden], dtype, "c")] * (states - 1)
    buffers = [tirx.decl_buffer(shape, kind, name) for shape, kind, name in shapes]
    attrs = {
        "op_pattern": _OPAQUE,
        "tirx.noalias": True,
        RECURRENCE: cell.attributes(),
    }
    kernel = recurrence.plain(cell, buffers, attrs)
    target = builder.add_func(kernel, cell.kind.lower())
    steps, batch = list(x.shape)[:2]
    outputs = [relax.TensorType([steps, batch, units], dtype)]
    outputs += [relax.TensorType([batch, n], dtype) for n in (units, hidden)[:states]]
    return relax.call_tir(target, relax.Tuple(list(operands)), outputs)


def _number(size: Any) -> int | None:
    return int(size) if isinstance(size, (int, tirx.IntImm)) else None
