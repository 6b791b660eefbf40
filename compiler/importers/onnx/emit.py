"""Short ways to write Relax for converters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused

op = relax.op


def kernel(node: Node, make: Callable[..., Any], *args: Any, name: str) -> relax.Var:
    """The result of a TE function as a kernel of its own name."""
    return node.emit(node.bb.call_te(make, *args, primfunc_name_hint=name))


def elementwise(
    node: Node, rule: Callable[..., Expr], x: relax.Expr, *more: relax.Expr, name: str
) -> relax.Var:
    """``rule`` of the elements of ``x`` and of the others, which broadcast to it."""

    def make(first: te.Tensor, *others: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Expr:
            return rule(first(*at), *[t(*spread(t.shape, at)) for t in others])

        return te.compute(first.shape, element, name=name)

    return kernel(node, make, x, *more, name=name)


def spread(shape: Sequence[Any], at: Sequence[Any]) -> list[Any]:
    """The place in a tensor of ``shape`` of what is broadcast to the place ``at``."""
    return [
        0 if is_one(extent) else index
        for extent, index in zip(shape, at[len(at) - len(shape) :], strict=True)
    ]


def is_one(extent: Any) -> bool:
    return isinstance(extent, (int, tirx.IntImm)) and int(extent) == 1


def const(value: Any, dtype: str) -> relax.Expr:
    """A constant of this type; ``relax.const`` alone would narrow 64-bit arrays."""
    return relax.const(np.asarray(value, np.dtype(dtype)), dtype)


def astype(x: relax.Expr, dtype: str) -> relax.Expr:
    return x if str(x.ty.dtype) == dtype else op.astype(x, dtype)


def ranked(node: Node, index: int = 0) -> list[Any]:
    """The sizes of an input, each an int or an expression; refused where they are unknown."""
    shape = node.shape(index)
    if shape is None:
        raise Refused(
            f"the shape of its input {index} is not known at import: fix the sizes that lead to "
            "it, or run this step outside the model"
        )
    return shape


def fixed(node: Node, sizes: Sequence[Any], what: str) -> list[int]:
    """Sizes as ints; refused where one is open."""
    if not all(isinstance(n, int) for n in sizes):
        raise Refused(f"{what} must be fixed, it is ({', '.join(map(str, sizes))})")
    return [int(n) for n in sizes]


def setting(node: Node, index: int, what: str) -> np.ndarray:
    """The value of an input that sets a shape or an attribute; refused where it is computed."""
    value = node.value(index)
    if value is None:
        raise Refused(
            f"its {what} (input {index}) must be known at import: make it an initializer, or give "
            "its value as example input"
        )
    return value
