"""One step of the optimizers of ai.onnx.preview.training, for any number of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax

from burnish.compiler.importers.onnx.emit import astype, const, op
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts

DOMAIN = "ai.onnx.preview.training"


@converts("Adagrad", domain=DOMAIN)
def adagrad(node: Node) -> Result:
    """``R, T, X..., G..., H... -> X..., H...``."""
    decay = float(node.attrs.get("decay_factor", 0.0))
    epsilon = float(node.attrs.get("epsilon", 0.0))

    def step(m: _Math, x: Any, g: Any, h: Any) -> tuple[Any, ...]:
        rate = m.divide(node.inputs[0], m.add(m.multiply(m.count, decay), 1.0))
        h_new = m.add(h, m.multiply(g, g))
        root = m.add(m.root(h_new), epsilon)
        return m.subtract(x, m.divide(m.multiply(rate, g), root)), h_new

    return _each(node, 3, step)


@converts("Momentum", domain=DOMAIN)
def momentum(node: Node) -> Result:
    """``R, T, X..., G..., V... -> X..., V...``, standard or Nesterov's."""
    alpha, beta = float(node.attrs["alpha"]), float(node.attrs["beta"])
    mode = str(node.attrs["mode"])
    if mode not in ("standard", "nesterov"):
        raise Refused(f"mode={mode}: ONNX has standard and nesterov")

    def step(m: _Math, x: Any, g: Any, v: Any) -> tuple[Any, ...]:
        share = m.choose(m.is_later, beta, 1.0)
        v_new = m.add(m.multiply(v, alpha), m.multiply(share, g))
        ahead = v_new if mode == "standard" else m.add(g, m.multiply(v_new, alpha))
        return m.subtract(x, m.multiply(node.inputs[0], ahead)), v_new

    return _each(node, 3, step)


@converts("Adam", domain=DOMAIN)
def adam(node: Node) -> Result:
    """``R, T, X..., G..., V..., H... -> X..., V..., H...``."""
    alpha, beta = float(node.attrs.get("alpha", 0.9)), float(node.attrs.get("beta", 0.999))
    epsilon = float(node.attrs.get("epsilon", 0.0))
    after = float(node.attrs.get("norm_coefficient_post", 0.0))

    def step(m: _Math, x: Any, g: Any, v: Any, h: Any) -> tuple[Any, ...]:
        v_new = m.add(m.multiply(v, alpha), m.multiply(g, 1 - alpha))
        h_new = m.add(m.multiply(h, beta), m.multiply(m.multiply(g, g), 1 - beta))
        root = m.add(m.root(h_new), epsilon)
        # 1 where T is 0, so that nothing is divided by 0 in what is not chosen.
        count = m.choose(m.is_later, m.count, 1.0)
        up = m.root(m.subtract(1.0, m.power(beta, count)))
        down = m.subtract(1.0, m.power(alpha, count))
        rate = m.choose(m.is_later, m.divide(m.multiply(node.inputs[0], up), down), node.inputs[0])
        x_new = m.subtract(x, m.divide(m.multiply(rate, v_new), root))
        return m.multiply(x_new, 1 - after), v_new, h_new

    return _each(node, 4, step)


class _Math:
    """Arithmetic on expressions and numbers of one type, each result bound."""

    def __init__(self, node: Node) -> None:
        self.node, self.dtype = node, str(node.inputs[2].ty.dtype)
        self.count = node.emit(astype(node.inputs[1], self.dtype))
        zero = const(0, str(node.inputs[1].ty.dtype))
        self.is_later = node.emit(op.greater(node.inputs[1], zero))

    def _of(self, value: Any) -> relax.Expr:
        if isinstance(value, relax.Expr):
            return astype(value, self.dtype)
        return const(value, self.dtype)

    def _two(self, make: Callable[..., relax.Expr], a: Any, b: Any) -> relax.Var:
        return self.node.emit(make(self._of(a), self._of(b)))

    def add(self, a: Any, b: Any) -> relax.Var:
        return self._two(op.add, a, b)

    def subtract(self, a: Any, b: Any) -> relax.Var:
        return self._two(op.subtract, a, b)

    def multiply(self, a: Any, b: Any) -> relax.Var:
        return self._two(op.multiply, a, b)

    def divide(self, a: Any, b: Any) -> relax.Var:
        return self._two(op.divide, a, b)

    def power(self, a: Any, b: Any) -> relax.Var:
        return self._two(op.power, a, b)

    def root(self, a: Any) -> relax.Var:
        return self.node.emit(op.sqrt(self._of(a)))

    def choose(self, condition: relax.Expr, a: Any, b: Any) -> relax.Var:
        return self.node.emit(op.where(condition, self._of(a), self._of(b)))


def _each(node: Node, kinds: int, step: Callable[..., tuple[Any, ...]]) -> Result:
    """``step`` for every tensor; its gradient has the norm's part added."""
    given = node.inputs[2:]
    if len(given) % kinds:
        raise Refused(f"{len(given)} tensors, not a multiple of {kinds}")
    count = len(given) // kinds
    m = _Math(node)
    weight = float(node.attrs.get("norm_coefficient", 0.0))
    rows = []
    for i in range(count):
        x, g, *rest = given[i::count]
        rows.append(step(m, x, m.add(m.multiply(x, weight), g), *rest))
    return tuple(row[k] for k in range(kinds - 1) for row in rows)
