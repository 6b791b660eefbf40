"""Shapes that are known only when the model runs: integers of a tensor become size variables."""

from __future__ import annotations

import itertools
from typing import Any

from tvm import relax, tirx

from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused

_COUNT = itertools.count()


def size_variables(
    node: Node, expr: relax.Expr, name: str = "size", *, product: Any = None
) -> list[tirx.Var]:
    """Variables for the elements of an integer list of known length, read when the model runs.

    A negative element counts as 0, as a size cannot be negative. Where ``product`` is given, the
    model stops with an error unless the sizes multiply to it.
    """
    # FuseOps orders the calls of a dataflow block by their tensors alone: one could come before
    # the sizes that its shape names.
    node.graph.allow_branches()
    shape = getattr(expr.ty, "shape", None)
    if not isinstance(shape, relax.ShapeExpr) or not isinstance(shape[0], tirx.IntImm):
        raise Refused("a shape of open rank: make the shape a list of fixed length")
    count = int(shape[0])
    if str(expr.ty.dtype) != "int64":
        expr = node.emit(relax.op.astype(expr, "int64"))
    expr = node.emit(relax.op.maximum(expr, relax.const(0, "int64")))
    variables = [tirx.Var(f"{name}_{next(_COUNT)}", "int64") for _ in range(count)]
    wanted: list[Any] = list(variables)
    if product is not None:
        total = node.emit(relax.op.prod(expr, axis=0, keepdims=True))
        expr = node.emit(relax.op.concat([total, expr], axis=0))
        wanted = [product, *variables]
    sizes = node.emit(relax.op.tensor_to_shape(expr))
    node.bb.match_cast(sizes, relax.ShapeType(wanted))
    return variables


def size_variable(node: Node, expr: relax.Expr, name: str = "size") -> tirx.Var:
    """The variable of one number, a scalar or a list of one."""
    return size_variables(node, node.emit(relax.op.reshape(expr, [1])), name)[0]


def target_sizes(node: Node, index: int) -> list[Any]:
    """The elements of an input that is a target shape: numbers, symbols, or new variables."""
    known = node.sizes(index)
    if known is not None:
        return [int(n) if isinstance(n, int) else n for n in known.ravel().tolist()]
    return list(size_variables(node, node.input(index)))
