"""LSTM, GRU and RNN: one matmul over all steps, then one kernel for the recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, tirx

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.recurrent import Direction, Layer, Operand, expression
from burnish.targets.recurrence_form import ACTIVATIONS, GATES, Cell

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
_POSITIONS = {"w": 1, "r": 2, "bias": 3, "after": 3, "peepholes": 7}
_NAMES = {name.lower(): name for name in ACTIVATIONS}


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
    layer = _Node(node, kind, x, wide, layout, len(ways))
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


class _Node:
    """One node: what its directions share."""

    def __init__(
        self, node: Node, kind: str, x: relax.Var, dtype: str, layout: int, ways: int
    ) -> None:
        self.node, self.kind, self.dtype, self.layout = node, kind, dtype, layout
        self.gates = GATES[kind]
        steps, _, features = list(x.ty.shape)
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
        self.lengths = self._lengths(steps)
        self.layer = Layer(node.bb, kind, x, self.units, self.lengths)

    def _lengths(self, steps: Any) -> relax.Expr | None:
        lengths = self.node.input(4)
        if lengths is None:
            return None
        known = self.node.value(4)
        if known is not None and _fixed(steps) and (known == int(steps)).all():
            return None
        return _cast(self.node, lengths, self.node.dtype(4), "int32")

    def direction(self, cell: Cell, index: int) -> list[relax.Var]:
        """``[y, h]`` or ``[y, h, c]`` of one direction."""
        layer = self.layer
        bias = self.node.input(3)
        states = (5, 6) if self.kind == "LSTM" else (5,)
        part = Direction(
            w=self._piece(1, index),
            r=self._piece(2, index),
            bias=None if bias is None else layer.shaped(self._piece(3, index), [2, -1]),
            first=[self._state(position, index) for position in states],
            peepholes=self._peepholes(index) if cell.peepholes else None,
        )
        name = ("forward", "reverse")[cell.reverse]
        return layer.run(cell, part, lambda value, role: self._stored(value, role, name))

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

    def _peepholes(self, index: int) -> Operand:
        """ONNX's order is i, o, f; the kernel's is i, f, o."""
        rows = self.layer.shaped(self._piece(7, index), [3, self.units])
        return self.layer.picked(rows, (0, 2, 1))

    def _state(self, position: int, index: int) -> relax.Expr:
        if self.node.input(position) is None:
            return self.layer.zeros()
        value = expression(self._known(position))
        if self.layout:
            value = self.node.emit(op.permute_dims(value, [1, 0, 2]))
        rows = self.node.emit(
            op.strided_slice(value, [0], [index], [index + 1], assume_inbound=True)
        )
        return self.node.emit(op.reshape(rows, relax.ShapeExpr([self.layer.batch, self.units])))

    def _known(self, position: int) -> Operand:
        """An input: its array if it is a weight or a constant."""
        array = self.node.graph.array_of(self.node.inputs[position])
        if array is not None:
            return array.astype(self.dtype)
        return _cast(self.node, self.node.inputs[position], self.node.dtype(position), self.dtype)

    def _piece(self, position: int, index: int) -> Operand:
        """One direction of an input."""
        return self.layer.row(self._known(position), index)

    def _stored(self, value: Operand, role: str, suffix: str) -> relax.Expr:
        """An array as a weight, named after the input it comes from."""
        if not isinstance(value, np.ndarray):
            return value
        position = _POSITIONS[role]
        source = self.node.inputs[position] if self.node.input(position) is not None else None
        name = getattr(source, "name", "") or f"{self.node.name}.{position}"
        if role == "after":
            suffix += ".after"
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
