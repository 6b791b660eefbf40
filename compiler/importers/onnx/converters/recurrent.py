"""LSTM, GRU and RNN: one matmul over all steps, then one kernel for the recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, tirx

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.passes.recurrence import call_recurrence, panel_width
from burnish.targets.cpu.recurrence import ACTIVATIONS, GATES, Cell

op = relax.op

_DEFAULTS = {
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
    "RNN": ["Tanh"],
}
_TAKES_ALPHA = {
    "Affine": None,
    "Elu": 1.0,
    "HardSigmoid": 0.2,
    "LeakyRelu": 0.01,
    "ScaledTanh": None,
    "ThresholdedRelu": 1.0,
}
_TAKES_BETA = {"Affine": None, "HardSigmoid": 0.5, "ScaledTanh": None}
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_NAMES = {name.lower(): name for name in ACTIVATIONS}

Operand = Any  # a NumPy array where it is known at import, else a Relax expression


@converts("LSTM")
@converts("GRU")
@converts("RNN")
def recurrent(node: Node) -> Result:
    """``x [T, B, I] -> y [T, D, B, H], y_h [D, B, H]``, of an LSTM ``y_c`` too.

    With ``layout=1`` batches are in front: ``[B, T, I] -> [B, T, D, H], [B, D, H]``. Numbers of
    two bytes are computed in float32.
    """
    kind, attrs = node.op, node.attrs
    direction = attrs.get("direction", "forward").lower()
    if direction not in _DIRECTIONS:
        raise Refused(f"direction={direction!r} is none of {', '.join(_DIRECTIONS)}")
    ways = _DIRECTIONS[direction]
    if node.shape(0) is None or node.shape(2) is None:
        raise Refused("an input of unknown shape: fix its sizes in example_inputs")
    if node.ndim(0) != 3:
        raise Refused(
            f"its input has {node.ndim(0)} axes, not 3 (in a branch that is never taken, give the "
            "condition at import)"
        )
    dtype = node.dtype(0)
    wide = dtype if dtype in ("float32", "float64") else "float32"
    layout = int(attrs.get("layout", 0))
    x = _cast(node, node.inputs[0], dtype, wide)
    if layout:
        x = node.emit(op.permute_dims(x, [1, 0, 2]))
    layer = _Layer(node, kind, x, wide, layout, len(ways))
    given = _activations(kind, attrs, len(ways))
    parts = []
    for index, reverse in enumerate(ways):
        cell = Cell(
            kind,
            given[index],
            reverse=reverse,
            after=kind == "GRU" and bool(attrs.get("linear_before_reset", 0)),
            coupled=kind == "LSTM" and bool(attrs.get("input_forget", 0)),
            peepholes=kind == "LSTM" and node.input(7) is not None,
            lengths=layer.lengths is not None,
            clip=float(attrs.get("clip", 0.0)),
        )
        parts.append(layer.direction(cell, index))
    results = [layer.stacked([part[0] for part in parts], 1)]
    for position in range(1, len(parts[0])):
        results.append(layer.stacked([part[position] for part in parts], 0))
    return tuple(
        _cast(node, value, wide, dtype) if node.wants(index) else None
        for index, value in enumerate(results[: len(node.outputs)])
    )


class _Layer:
    """One node: what its directions share."""

    def __init__(
        self, node: Node, kind: str, x: relax.Var, dtype: str, layout: int, ways: int
    ) -> None:
        self.node, self.kind, self.x, self.dtype, self.layout = node, kind, x, dtype, layout
        self.gates = GATES[kind]
        self.steps, self.batch, features = list(x.ty.shape)
        recurrent = node.shape(2)
        assert recurrent is not None
        found = [recurrent[0], recurrent[2]]
        if not all(isinstance(n, int) for n in [*found, *(node.shape(1) or [None])]):
            raise Refused("weights of unknown sizes: give example_inputs")
        self.units = int(recurrent[2])
        want = [[ways, self.gates * self.units, int(features)] if _fixed(features) else None,
                [ways, self.gates * self.units, self.units]]  # fmt: skip
        for index, expected in enumerate(want, 1):
            if expected is not None and node.shape(index) != expected:
                raise ValueError(f"weights of shape {node.shape(index)}, not {expected}")
        declared = node.attrs.get("hidden_size", self.units)
        if declared != self.units:
            raise ValueError(f"hidden_size={declared} and weights of {self.units} units")
        batch = int(self.batch) if _fixed(self.batch) else None
        self.width = panel_width(kind, self.units, batch)
        self.panels = -(-self.units // self.width)
        self.padded = self.panels * self.width
        self.lengths = self._lengths()

    def _lengths(self) -> relax.Expr | None:
        lengths = self.node.input(4)
        if lengths is None:
            return None
        known = self.node.value(4)
        if known is not None and _fixed(self.steps) and (known == int(self.steps)).all():
            return None
        return _cast(self.node, lengths, self.node.dtype(4), "int32")

    def direction(self, cell: Cell, index: int) -> list[relax.Expr]:
        """``[y, h]`` or ``[y, h, c]`` of one direction."""
        emit, node = self.node.emit, self.node
        name = ("forward", "reverse")[cell.reverse]
        w = self._gates(self._piece(1, index), self.units)
        r = self._gates(self._piece(2, index), self.units)
        weight = self._stored(self._shaped(w, [self.gates * self.padded, -1]), 1, name)
        x = emit(op.matmul(self.x, emit(op.permute_dims(weight))))
        bias, apart = self._bias(cell, index)
        if bias is not None:
            x = emit(op.add(x, self._stored(bias, 3, name)))
        x = emit(op.reshape(x, relax.ShapeExpr(
            [self.steps, self.batch, self.gates, self.padded])))  # fmt: skip
        panels = self._turned(
            self._shaped(r, [self.gates, self.panels, self.width, self.units]), [1, 3, 0, 2]
        )
        operands = [x, self._stored(panels, 2, name)]
        if cell.after:
            operands.append(self._stored(apart, 3, f"{name}.after"))
        if cell.peepholes:
            operands.append(self._stored(self._peepholes(index), 7, name))
        operands.append(self._state(5, index))
        if self.kind == "LSTM":
            operands.append(self._state(6, index))
        if self.lengths is not None:
            operands.append(self.lengths)
        made = emit(call_recurrence(node.bb, cell, operands))
        count = 3 if self.kind == "LSTM" else 2
        return [emit(relax.TupleGetItem(made, i)) for i in range(count)]

    def stacked(self, parts: Sequence[relax.Expr], axis: int) -> relax.Expr:
        """Directions side by side; with layout 1 the batch goes to the front."""
        emit, shape = self.node.emit, list(parts[0].ty.shape)
        # Reshapes are views, where the result of another operator is a copy.
        one = relax.ShapeExpr([*shape[:axis], 1, *shape[axis:]])
        wide = [emit(op.reshape(part, one)) for part in parts]
        value = wide[0] if len(wide) == 1 else emit(op.concat(wide, axis))
        if self.layout:
            value = emit(op.permute_dims(value, [2, 0, 1, 3] if axis else [1, 0, 2]))
        return value

    def _bias(self, cell: Cell, index: int) -> tuple[Operand | None, Operand | None]:
        """Of all gates together ``[G * N]``, and of a GRU's candidate that is reset after it."""
        if self.node.input(3) is None:
            return None, np.zeros(self.padded, self.dtype) if cell.after else None
        both = self._shaped(self._piece(3, index), [2, self.gates, self.units])
        if not isinstance(both, np.ndarray):
            both = self.node.emit(both)
        first, second = (self._row(both, i) for i in range(2))
        apart = None
        if cell.after:
            apart = self._padded(self._row(second, self.gates - 1), 0)
            keep = np.ones((self.gates, 1), self.dtype)
            keep[-1] = 0
            second = self._binary(second, keep, np.multiply, op.multiply)
        total = self._padded(self._binary(first, second, np.add, op.add), 1)
        return self._shaped(total, [self.gates * self.padded]), apart

    def _peepholes(self, index: int) -> Operand:
        """ONNX's order is i, o, f; the kernel's is i, f, o."""
        rows = self._shaped(self._piece(7, index), [3, self.units])
        turned = [self._shaped(self._row(rows, i), [1, self.units]) for i in (0, 2, 1)]
        if all(isinstance(row, np.ndarray) for row in turned):
            return self._padded(np.concatenate(turned), 1)
        return self._padded(self.node.emit(op.concat(turned, 0)), 1)

    def _state(self, position: int, index: int) -> relax.Expr:
        if self.node.input(position) is None:
            shape = relax.ShapeExpr([self.batch, self.units])
            return self.node.emit(op.zeros(shape, self.dtype))
        value = self._expr(self._known(position))
        if self.layout:
            value = self.node.emit(op.permute_dims(value, [1, 0, 2]))
        rows = self.node.emit(
            op.strided_slice(value, [0], [index], [index + 1], assume_inbound=True)
        )
        return self.node.emit(op.reshape(rows, relax.ShapeExpr([self.batch, self.units])))

    # What follows computes on arrays at import, on expressions at run time.

    def _known(self, position: int) -> Operand:
        """An input: its array if it is a weight or a constant."""
        array = self.node.graph.array_of(self.node.inputs[position])
        if array is not None:
            return array.astype(self.dtype)
        return _cast(self.node, self.node.inputs[position], self.node.dtype(position), self.dtype)

    def _piece(self, position: int, index: int) -> Operand:
        """One direction of an input."""
        return self._row(self._known(position), index)

    def _row(self, value: Operand, index: int) -> Operand:
        if isinstance(value, np.ndarray):
            return value[index]
        emit = self.node.emit
        part = emit(op.strided_slice(value, [0], [index], [index + 1], assume_inbound=True))
        return emit(op.squeeze(part, [0]))

    def _gates(self, value: Operand, units: int) -> Operand:
        """``[G * H, K] -> [G, N, K]``."""
        return self._padded(self._shaped(value, [self.gates, units, -1]), 1)

    def _padded(self, value: Operand, axis: int) -> Operand:
        more = self.padded - self.units
        if not more:
            return value
        if isinstance(value, np.ndarray):
            return np.pad(value, [(0, more if a == axis else 0) for a in range(value.ndim)])
        rank = int(value.ty.ndim)
        widths = [n for a in range(rank) for n in (0, more if a == axis else 0)]
        return self.node.emit(op.nn.pad(value, widths))

    def _shaped(self, value: Operand, shape: Sequence[int]) -> Operand:
        if isinstance(value, np.ndarray):
            return value.reshape(shape)
        return self.node.emit(op.reshape(value, list(shape)))

    def _turned(self, value: Operand, axes: list[int]) -> Operand:
        if isinstance(value, np.ndarray):
            return np.ascontiguousarray(value.transpose(axes))
        return self.node.emit(op.permute_dims(value, axes))

    def _binary(self, a: Operand, b: Operand, known: Any, make: Any) -> Operand:
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return known(a, b)
        return self.node.emit(make(self._expr(a), self._expr(b)))

    def _expr(self, value: Operand) -> relax.Expr:
        if not isinstance(value, np.ndarray):
            return value
        return relax.const(value, str(value.dtype))

    def _stored(self, value: Operand, position: int, suffix: str) -> relax.Expr:
        """An array as a weight, named after the input it comes from."""
        if not isinstance(value, np.ndarray):
            return value
        source = self.node.inputs[position] if self.node.input(position) is not None else None
        name = getattr(source, "name", "") or f"{self.node.name}.{position}"
        return self.node.graph.new_weight(f"{name}.{suffix}", np.ascontiguousarray(value))


def _activations(
    kind: str, attrs: dict[str, Any], ways: int
) -> list[tuple[tuple[str, float, float], ...]]:
    """For each direction the functions of its cell; alphas and betas go to those that take one."""
    count = len(_DEFAULTS[kind])
    names = attrs.get("activations") or _DEFAULTS[kind] * ways
    if len(names) != count * ways:
        raise Refused(f"{len(names)} activations where {count * ways} are needed")
    alphas, betas = (list(attrs.get(f"activation_{n}") or []) for n in ("alpha", "beta"))
    found = []
    for given in names:
        name = _NAMES.get(given.lower())
        if name is None:
            raise Refused(f"the activation {given!r} is none of {', '.join(ACTIVATIONS)}")
        alpha = _number(name, alphas, _TAKES_ALPHA, "alpha")
        found.append((name, alpha, _number(name, betas, _TAKES_BETA, "beta")))
    return [tuple(found[i * count : (i + 1) * count]) for i in range(ways)]


def _number(name: str, left: list[float], takes: dict[str, float | None], word: str) -> float:
    """The next of the numbers given, for a function that takes one; else its default, or 0."""
    if name not in takes:
        return 0.0
    number = float(left.pop(0)) if left else takes[name]
    if number is None:
        raise Refused(f"the activation {name} has no activation_{word}: give one")
    return number


def _cast(node: Node, value: relax.Expr, source: str, target: str) -> relax.Expr:
    return value if source == target else node.emit(op.astype(value, target))


def _fixed(size: Any) -> bool:
    return isinstance(size, (int, tirx.IntImm))
