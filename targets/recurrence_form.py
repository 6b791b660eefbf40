"""Recurrences (LSTM, GRU, plain RNN) as schedule rules see them: the cell, its functions, operands.

Projections of the inputs are one matmul before the kernel; what is left of a step is the product
of the last state with the recurrent weights, and the cell. The function's attribute
``burnish.recurrence`` says which cell it is; its parameters are

- ``x [T, B, G, N]``     projected inputs, biases added, gates in the cell's order
- ``r [N / NB, H, G, NB]``  recurrent weights in panels of ``NB`` units
- ``rb [N]``             with ``after``: the recurrent bias of the candidate
- ``p [3, N]``           with ``peepholes``: factors of the cell state for gates i, f, o
- ``w [M / MB, H, 1, MB]``  with ``projected`` (LSTM): what makes states of ``P`` of ``H`` units
- ``h0 [B, H]``, ``c0 [B, H]`` (LSTM)  first states
- ``lengths [B] int32``  with ``lengths``: steps of each row; later results are zeros
- ``y [T, B, H]``, ``h [B, H]``, ``c [B, H]`` (LSTM)  results

``N`` is ``H`` rounded up to whole panels; ``T`` and ``B`` may be symbolic. With ``projected``,
``P`` stands for ``H`` in ``r``, ``h0``, ``y`` and ``h``, and ``M`` is ``P`` in whole panels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Expr, Var

RECURRENCE = "burnish.recurrence"
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = (
    "Affine", "Elu", "HardSigmoid", "LeakyRelu", "Relu", "ScaledTanh", "Sigmoid", "Softplus",
    "Softsign", "Tanh", "ThresholdedRelu",
)  # fmt: skip
Activate = Callable[[Expr], Expr]


@dataclass(frozen=True)
class Cell:
    """What one step computes; ``activations`` are (name, alpha, beta), as many as the kind takes.

    ``after``: a GRU's reset gate scales the product, not its operand. ``coupled``: an LSTM's
    forget gate is 1 - i. ``clip`` limits what activations are given; 0 does not.
    """

    kind: str
    activations: tuple[tuple[str, float, float], ...]
    reverse: bool = False
    after: bool = False
    coupled: bool = False
    peepholes: bool = False
    lengths: bool = False
    clip: float = 0.0
    projected: bool = False

    def attributes(self) -> dict[str, Any]:
        """As the value of a function attribute."""
        return {
            "kind": self.kind,
            "names": [name for name, _, _ in self.activations],
            "numbers": [repr(n) for _, alpha, beta in self.activations for n in (alpha, beta)],
            "flags": [
                int(flag)
                for flag in (
                    self.reverse, self.after, self.coupled, self.peepholes, self.lengths,
                    self.projected,
                )
            ],
            "clip": repr(self.clip),
        }  # fmt: skip

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Cell:
        """From the value of the attribute."""
        info = {str(key): value for key, value in attributes.items()}
        numbers = [float(str(n)) for n in info["numbers"]]
        names = [str(name) for name in info["names"]]
        parts = zip(names, numbers[::2], numbers[1::2], strict=True)
        reverse, after, coupled, peepholes, lengths, projected = (
            bool(int(n)) for n in info["flags"]
        )
        kind, clip = str(info["kind"]), float(str(info["clip"]))
        return cls(kind, tuple(parts), reverse, after, coupled, peepholes, lengths, clip, projected)


def read(func: tirx.PrimFunc) -> Cell | None:
    """The cell of a recurrence by its attribute, or ``None`` for any other function."""
    attrs = dict(func.attrs.items()) if func.attrs is not None else {}
    return Cell.of(attrs[RECURRENCE]) if RECURRENCE in attrs else None


@dataclass(frozen=True)
class Operands:
    """The parameters of a kernel; ``None`` for those that its cell has not."""

    x: Var
    r: Var
    rb: Var | None
    p: Var | None
    w: Var | None
    h0: Var
    c0: Var | None
    lengths: Var | None
    y: Var
    h: Var
    c: Var | None

    @classmethod
    def of(cls, cell: Cell, params: Sequence[Var]) -> Operands:
        """In the order that the module's docstring lists them in."""
        lstm = cell.kind == "LSTM"
        has = (True, True, cell.after, cell.peepholes, cell.projected, True, lstm, cell.lengths)
        left = iter(params)
        return cls(*(next(left) if one else None for one in (*has, True, True, lstm)))

    @property
    def dtype(self) -> str:
        return str(self.x.dtype)

    @property
    def steps(self) -> Expr:
        return self.x.shape[0]

    @property
    def batch(self) -> Expr:
        return self.x.shape[1]

    @property
    def units(self) -> int:
        """Of a state."""
        return int(self.y.shape[2])

    @property
    def hidden(self) -> int:
        """Of the cell; more than ``units`` where it projects its states."""
        return self.units if self.w is None else int(self.w.shape[1])


class Gates:
    """The functions of a cell's gates, in the type of what they are given."""

    def __init__(self, cell: Cell) -> None:
        self._limit = cell.clip
        self._acts = [activation(*act) for act in cell.activations]

    def __call__(self, which: int, value: Expr) -> Expr:
        """The function ``which`` of a sum, clipped as the cell says."""
        if self._limit > 0:
            low, high = (tirx.const(n, str(value.ty.dtype)) for n in (-self._limit, self._limit))
            value = tirx.max(tirx.min(value, high), low)
        return self._acts[which](value)

    def unclipped(self, which: int, value: Expr) -> Expr:
        """The function ``which`` of what is no sum: an LSTM's memory."""
        return self._acts[which](value)


def activation(name: str, alpha: float, beta: float) -> Activate:
    """ONNX's activation functions of recurrent operators."""

    def number(value: float, like: Expr) -> Expr:
        return tirx.const(value, str(like.ty.dtype))

    def zero(x: Expr) -> Expr:
        return number(0, x)

    def one(x: Expr) -> Expr:
        return number(1, x)

    def hard_sigmoid(x: Expr) -> Expr:
        line = x * number(alpha, x) + number(beta, x)
        return tirx.max(tirx.min(line, one(x)), zero(x))

    def negative(make: Activate) -> Activate:
        return lambda x: tirx.Select(x < zero(x), make(x), x)

    known: dict[str, Activate] = {
        "Affine": lambda x: x * number(alpha, x) + number(beta, x),
        "Elu": negative(lambda x: number(alpha, x) * (tirx.exp(x) - one(x))),
        "HardSigmoid": hard_sigmoid,
        "LeakyRelu": negative(lambda x: number(alpha, x) * x),
        "Relu": lambda x: tirx.max(x, zero(x)),
        "ScaledTanh": lambda x: number(alpha, x) * tirx.tanh(number(beta, x) * x),
        "Sigmoid": tirx.sigmoid,
        "Softplus": lambda x: tirx.max(x, zero(x)) + tirx.log(one(x) + tirx.exp(-tirx.abs(x))),
        "Softsign": lambda x: x / (one(x) + tirx.abs(x)),
        "Tanh": tirx.tanh,
        "ThresholdedRelu": lambda x: tirx.Select(x > number(alpha, x), x, zero(x)),
    }
    return known[name]


__all__ = ["ACTIVATIONS", "GATES", "RECURRENCE", "Cell", "Gates", "Operands", "read"]
