"""LSTM, GRU and plain RNN, each layer and direction as one kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from torch import fx
from tvm import relax, tirx

from burnish.compiler.importers.pytorch.arguments import arguments
from burnish.compiler.importers.recurrent import Direction, Layer, Operand
from burnish.targets.recurrence_form import GATES, Cell

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.converters.kinds import Converter
    from burnish.compiler.importers.pytorch.translator import Translator

op = relax.op

# torch's gates are i, f, g, o and r, z, n; the kernel's i, o, f, g and z, r, n.
_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
_SIGMOID, _TANH = ("Sigmoid", 0.0, 0.0), ("Tanh", 0.0, 0.0)
_ACTIVATIONS = {
    "LSTM": (_SIGMOID, _TANH, _TANH),
    "GRU": (_SIGMOID, _TANH),
    "RNN": (_TANH,),
}
_SOURCES = {
    "w": slice(0, 1), "r": slice(1, 2), "bias": slice(2, 4), "after": slice(3, 4),
    "projection": slice(-1, None),
}  # fmt: skip


def recurrent(kind: str, activation: str = "") -> Converter:
    """``x [T, B, I] -> y [T, B, D * S], h [L * D, B, S]``, of an LSTM ``c [L * D, B, H]`` too.

    Numbers of two bytes are computed in float32, and become such again at the end of all layers.
    """
    functions = ((activation, 0.0, 0.0),) if activation else _ACTIVATIONS[kind]

    def convert(node: fx.Node, t: Translator) -> Any:
        return _Call(node, t, kind, functions).results()

    return convert


class _Call:
    """One call: all layers and directions of it."""

    def __init__(self, node: fx.Node, t: Translator, kind: str, functions: tuple[Any, ...]) -> None:
        self.t, self.kind, self.functions = t, kind, functions
        a = arguments(node, t)
        if a["train"] and a["dropout"] and a["num_layers"] > 1:
            raise ValueError("dropout between recurrent layers: call model.eval() before exporting")
        self.ways = 2 if a["bidirectional"] else 1
        self.layers, self.biases = int(a["num_layers"]), bool(a["has_biases"])
        self.batch_first = bool(a["batch_first"])
        self.dtype = t.dtype_of(a["input"])
        self.wide = self.dtype if self.dtype == "float64" else "float32"
        self.x = self._cast(a["input"], self.wide)
        self.first = [
            self._cast(state, self.wide) for state in (a["hx"] if kind == "LSTM" else [a["hx"]])
        ]
        widths = [int(state.ty.shape[2]) for state in self.first]
        self.units, self.projected = widths[-1], widths[0] != widths[-1]
        self.sources = list(node.args[2])  # type: ignore[arg-type]
        self.params = list(a["params"])
        self.whole = node.graph is t.program.graph

    def results(self) -> list[relax.Expr]:
        x = self._turned(self.x) if self.batch_first else self.x
        last: list[list[relax.Var]] = []
        for index in range(self.layers):
            layer = Layer(self.t.block_builder, self.kind, x, self.units)
            parts = [self._direction(layer, index, way) for way in range(self.ways)]
            outputs = [part[0] for part in parts]
            x = outputs[0] if self.ways == 1 else self.t.emit(op.concat(outputs, 2))
            last += [part[1:] for part in parts]
        y = self._turned(x) if self.batch_first else x
        states = [self._side_by_side(list(states)) for states in zip(*last, strict=True)]
        return [self._cast(value, self.dtype) for value in (y, *states)]

    def _direction(self, layer: Layer, index: int, way: int) -> list[relax.Var]:
        place = index * self.ways + way
        count = 2 + 2 * self.biases + self.projected
        at = slice(place * count, (place + 1) * count)
        sources, params = self.sources[at], [self._known(p) for p in self.params[at]]
        order, gates = _ORDER[self.kind], GATES[self.kind]

        def ordered(value: Operand) -> Operand:
            sizes = [int(n) for n in (value.shape if _known(value) else value.ty.shape)]
            apart = layer.shaped(value, [gates, self.units, *sizes[1:]])
            return layer.shaped(layer.picked(apart, order), sizes)

        cell = Cell(
            self.kind,
            self.functions,
            reverse=way == 1,
            after=self.kind == "GRU",
            projected=self.projected,
        )
        part = Direction(
            w=ordered(params[0]),
            r=ordered(params[1]),
            bias=layer.stacked([ordered(b) for b in params[2:4]]) if self.biases else None,
            first=[self._state(layer, state, place) for state in self.first],
            projection=params[-1] if self.projected else None,
        )

        def stored(value: Operand, role: str) -> relax.Expr:
            if not _known(value):
                return value
            if role == "after" and not self.biases:
                return relax.const(value)
            made_of = sources[_SOURCES[role]]
            return self.t.derived.weight(made_of, f"{self.kind} {role}", value)

        return layer.run(cell, part, stored)

    def _known(self, value: relax.Expr) -> Operand:
        """A weight's array, else the expression."""
        array = self.t.derived.array(value) if self.whole else None
        return self._cast(value, self.wide) if array is None else array.astype(self.wide)

    def _state(self, layer: Layer, states: relax.Expr, place: int) -> relax.Expr:
        """``[L * D, B, S] -> [B, S]``."""
        count, batch, width = states.ty.shape
        shape = relax.ShapeExpr([batch, width])
        if _zeros(self.t, states):
            return self.t.emit(op.zeros(shape, self.wide))
        if int(count) > 1:
            cut = op.strided_slice(states, [0], [place], [place + 1], assume_inbound=True)
            states = self.t.emit(cut)
        return self.t.emit(op.reshape(states, shape))

    def _turned(self, x: relax.Expr) -> relax.Expr:
        """The first two axes exchanged; a view where one of them is 1."""
        first, second, rest = x.ty.shape
        if any(isinstance(n, tirx.IntImm) and int(n) == 1 for n in (first, second)):
            return self.t.emit(op.reshape(x, relax.ShapeExpr([second, first, rest])))
        return self.t.emit(op.permute_dims(x, [1, 0, 2]))

    def _side_by_side(self, states: list[relax.Var]) -> relax.Expr:
        one = [self.t.emit(op.reshape(s, relax.ShapeExpr([1, *s.ty.shape]))) for s in states]
        return one[0] if len(one) == 1 else self.t.emit(op.concat(one, 0))

    def _cast(self, value: relax.Expr, dtype: str) -> relax.Expr:
        if self.t.dtype_of(value) == dtype:
            return value
        return self.t.emit(op.astype(value, dtype))


def _known(value: Operand) -> bool:
    return isinstance(value, np.ndarray)


def _zeros(t: Translator, value: relax.Expr) -> bool:
    """Whether all of it is zero, from how it is made."""
    made = t.block_builder.lookup_binding(value) if isinstance(value, relax.Var) else value
    if not isinstance(made, relax.Call) or not isinstance(made.op, tvm.ir.Op):
        return False
    if made.op.name == "relax.astype":
        return _zeros(t, made.args[0])
    number = made.args[1] if made.op.name == "relax.full" else None
    return isinstance(number, tvm.ir.GenericConst) and not number.value.numpy().any()


RECURRENT: dict[str, Converter] = {
    "lstm.input": recurrent("LSTM"),
    "gru.input": recurrent("GRU"),
    "rnn_tanh.input": recurrent("RNN"),
    "rnn_relu.input": recurrent("RNN", "Relu"),
}
