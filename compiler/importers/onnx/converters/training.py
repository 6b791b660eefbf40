"""Optimizer steps of ai.onnx.preview.training: new weights and states as outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx.defs
from tvm import relax

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts

op = relax.op
DOMAIN = "ai.onnx.preview.training"


class _Step:
    """One node: expressions in one type, and its attributes with their defaults."""

    def __init__(self, node: Node, dtype: str) -> None:
        self.node, self.dtype = node, dtype

    def number(self, value: float) -> relax.Expr:
        return relax.const(np.float64(value).astype(self.dtype), self.dtype)

    def attribute(self, name: str) -> float:
        if name in self.node.attrs:
            return float(self.node.attrs[name])
        schema = onnx.defs.get_schema(self.node.op, self.node.version, DOMAIN)
        return float(schema.attributes[name].default_value.f)

    def cast(self, value: relax.Expr) -> relax.Expr:
        same = str(value.ty.dtype) == self.dtype
        value = value if same else self.node.emit(op.astype(value, self.dtype))
        return value if int(value.ty.ndim) == 0 else self.node.emit(op.reshape(value, []))

    def mul(self, a: Any, b: Any) -> relax.Expr:
        return self.node.emit(op.multiply(self._expr(a), self._expr(b)))

    def add(self, a: Any, b: Any) -> relax.Expr:
        return self.node.emit(op.add(self._expr(a), self._expr(b)))

    def sub(self, a: Any, b: Any) -> relax.Expr:
        return self.node.emit(op.subtract(self._expr(a), self._expr(b)))

    def div(self, a: Any, b: Any) -> relax.Expr:
        return self.node.emit(op.divide(self._expr(a), self._expr(b)))

    def sqrt(self, a: Any) -> relax.Expr:
        return self.node.emit(op.sqrt(self._expr(a)))

    def pow(self, a: float, b: relax.Expr) -> relax.Expr:
        return self.node.emit(op.power(self.number(a), b))

    def where(self, condition: relax.Expr, a: Any, b: Any) -> relax.Expr:
        return self.node.emit(op.where(condition, self._expr(a), self._expr(b)))

    def later(self) -> relax.Expr:
        """Whether this is not the first step."""
        count = self.node.inputs[1]
        if int(count.ty.ndim) != 0:
            count = self.node.emit(op.reshape(count, []))
        return self.node.emit(op.greater(count, relax.const(np.int64(0), "int64")))

    def regularized(self, x: relax.Expr, g: relax.Expr) -> relax.Expr:
        factor = self.attribute("norm_coefficient")
        return self.add(self.mul(factor, x), g) if factor else g

    def _expr(self, value: Any) -> relax.Expr:
        return self.number(value) if isinstance(value, (int, float)) else value


Rule = Callable[[_Step, relax.Expr, relax.Expr, list[relax.Expr]], list[relax.Expr]]


def _each(node: Node, states: int, rule: Rule) -> Result:
    """``rate, count, *x, *gradients, *states -> *x, *states``: the rule for each tensor."""
    given = node.inputs[2:]
    count, rest = divmod(len(given), 2 + states)
    if rest or not count:
        raise ValueError(f"{len(given)} tensors where a multiple of {2 + states} is needed")
    columns = [given[i * count : (i + 1) * count] for i in range(2 + states)]
    rows = []
    for x, gradient, *kept in zip(*columns, strict=True):
        step = _Step(node, str(x.ty.dtype))
        rows.append(rule(step, x, gradient, kept))
    return tuple(value for column in zip(*rows, strict=True) for value in column)


@converts("Adam", domain=DOMAIN)
def adam(node: Node) -> Result:
    """Kingma and Ba 2015, with its correction of both means from the second step on."""

    def rule(s: _Step, x: Any, gradient: Any, kept: list[Any]) -> list[Any]:
        rate, count = s.cast(node.inputs[0]), s.cast(node.inputs[1])
        alpha, beta = s.attribute("alpha"), s.attribute("beta")
        g = s.regularized(x, gradient)
        v = s.add(s.mul(alpha, kept[0]), s.mul(1 - alpha, g))
        h = s.add(s.mul(beta, kept[1]), s.mul(1 - beta, s.mul(g, g)))
        corrected = s.div(s.sqrt(s.sub(1, s.pow(beta, count))), s.sub(1, s.pow(alpha, count)))
        adjusted = s.where(s.later(), s.mul(rate, corrected), rate)
        root = s.add(s.sqrt(h), s.attribute("epsilon"))
        new = s.sub(x, s.mul(adjusted, s.div(v, root)))
        return [s.mul(1 - s.attribute("norm_coefficient_post"), new), v, h]

    return _each(node, 2, rule)


@converts("Adagrad", domain=DOMAIN)
def adagrad(node: Node) -> Result:
    """Duchi, Hazan and Singer 2011, with a rate that decays."""

    def rule(s: _Step, x: Any, gradient: Any, kept: list[Any]) -> list[Any]:
        rate, count = s.cast(node.inputs[0]), s.cast(node.inputs[1])
        rate = s.div(rate, s.add(1, s.mul(count, s.attribute("decay_factor"))))
        g = s.regularized(x, gradient)
        h = s.add(kept[0], s.mul(g, g))
        root = s.add(s.sqrt(h), s.attribute("epsilon"))
        return [s.sub(x, s.div(s.mul(rate, g), root)), h]

    return _each(node, 1, rule)


@converts("Momentum", domain=DOMAIN)
def momentum(node: Node) -> Result:
    """Plain momentum, or Nesterov's."""
    mode = node.attrs.get("mode", "standard")
    if mode not in ("standard", "nesterov"):
        raise Refused(f"mode={mode!r} is neither standard nor nesterov")

    def rule(s: _Step, x: Any, gradient: Any, kept: list[Any]) -> list[Any]:
        rate, alpha = s.cast(node.inputs[0]), s.attribute("alpha")
        g = s.regularized(x, gradient)
        share = s.where(s.later(), s.attribute("beta"), 1.0)
        v = s.add(s.mul(alpha, kept[0]), s.mul(share, g))
        step = v if mode == "standard" else s.add(g, s.mul(alpha, v))
        return [s.sub(x, s.mul(rate, step)), v]

    return _each(node, 1, rule)


@converts("Gradient", domain=DOMAIN)
def gradient(node: Node) -> Result:
    raise Refused("gradients are not computed: export the backward pass as operators")
