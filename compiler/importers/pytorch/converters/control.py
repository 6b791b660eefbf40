"""``torch.cond``, ``while_loop``, ``scan`` and ``map``: bodies are graphs of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx
from tvm import relax

from burnish.compiler.importers import repeat
from burnish.compiler.importers.pytorch.numbers import number, remember
from burnish.compiler.importers.steps import Scanned, scan
from burnish.compiler.importers.unsupported import Refused

if TYPE_CHECKING:
    from burnish.compiler.importers.pytorch.converters.kinds import Converter
    from burnish.compiler.importers.pytorch.translator import Translator

op = relax.op


def cond(node: fx.Node, t: Translator) -> Any:
    """``predicate, true graph, false graph, operands``: the branch taken is computed alone.

    A predicate known at import (a plain bool) leaves one branch, written out.
    """
    predicate, if_true, if_false, operands = node.args
    given = [_value(operand, t) for operand in operands]  # type: ignore[union-attr]
    graphs = [t.env[graph] for graph in (if_true, if_false)]
    if isinstance(predicate, bool):
        return t.inner(graphs[0] if predicate else graphs[1], given)
    condition = _value(predicate, t)
    if t.dtype_of(condition) != "bool":
        condition = t.emit(op.astype(condition, "bool"))
    if int(condition.ty.ndim):
        condition = t.emit(op.reshape(condition, []))
    branches = [_branch(graph, given, t) for graph in graphs]
    types = [branch.body.ty for branch in branches]
    if not repeat.same_type(*types):
        raise Refused(
            f"its branches give {types[0]} and {types[1]}: what one gives must have the dtypes and "
            "shapes of the other"
        )
    made = t.emit(relax.If(condition, *branches))
    return _named(
        node, [t.emit(relax.TupleGetItem(made, i)) for i in range(len(types[0].fields))], t
    )


def _branch(graph: fx.GraphModule, given: list[relax.Expr], t: Translator) -> relax.SeqExpr:
    return repeat.sequence(
        t.block_builder, lambda: relax.Tuple([t.emit(v) for v in t.inner(graph, given)])
    )


def while_loop(node: fx.Node, t: Translator) -> Any:
    """``condition graph, body graph, carried, others -> carried``; no round at all included."""
    goes_on, body, carried, others = node.args
    state = [_value(value, t) for value in carried]  # type: ignore[union-attr]
    around = [_value(value, t) for value in others]  # type: ignore[union-attr]
    types = [value.ty for value in state]

    def goes(values: list[relax.Expr]) -> relax.Expr:
        (condition,) = t.inner(t.env[goes_on], [*values, *around])
        condition = t.emit(condition)
        return condition if int(condition.ty.ndim) == 0 else t.emit(op.reshape(condition, []))

    def one(values: list[relax.Expr]) -> tuple[list[relax.Expr], list[relax.Expr]]:
        after = t.inner(t.env[body], [*values[1:], *around])
        after = [t.of_type(value, ty) for value, ty in zip(after, types, strict=True)]
        return [goes(after), *after], []

    return _named(node, repeat.repeat_while(t.block_builder, one, [goes(state), *state])[1:], t)


def scan_(node: fx.Node, t: Translator) -> Any:
    """``graph, states, inputs, others -> *states, *rows``, along the first axis of the inputs."""
    graph, states, inputs, others = node.args
    return _steps(node, t, graph, list(states), list(inputs), list(others))  # type: ignore[arg-type]


def map_(node: fx.Node, t: Translator) -> Any:
    """``graph, inputs, others -> *rows``: each index of the first axis by itself."""
    graph, inputs, others = node.args
    return _steps(node, t, graph, [], list(inputs), list(others))  # type: ignore[arg-type]


def _steps(
    node: fx.Node,
    t: Translator,
    graph: Any,
    states: list[Any],
    inputs: list[Any],
    others: list[Any],
) -> list[relax.Expr]:
    start, around = ([_value(v, t) for v in values] for values in (states, others))
    read = [Scanned(_value(value, t)) for value in inputs]
    size = t.symbols.size(inputs[0].meta["val"].shape[0])
    types = [value.ty for value in start]
    body = t.env[graph]

    def one(state: list[Any], rows: list[relax.Expr]) -> tuple[list[Any], list[relax.Expr]]:
        results = t.inner(body, [*state, *rows, *around])
        after = [t.of_type(v, ty) for v, ty in zip(results[: len(types)], types, strict=True)]
        return after, [t.emit(row) for row in results[len(types) :]]

    state, rows = scan(t.block_builder, one, start, read, size, len(body.graph.nodes))
    return [*state, *rows]


def _value(value: Any, t: Translator) -> relax.Expr:
    """An operand as a tensor: a plain number, or one that torch knows by a symbol, as a scalar."""
    if isinstance(value, fx.Node) and not hasattr(value.meta.get("val"), "shape"):
        held = t.env[value]
        return held if isinstance(held, relax.Var) else number(value.meta["val"], t)
    if isinstance(value, fx.Node):
        return t.env[value]
    if isinstance(value, (bool, int)):
        return number(value, t)
    if isinstance(value, float):
        return relax.const(value, "float32")
    raise Refused(f"an operand is {type(value).__name__}, no tensor")


def _named(node: fx.Node, results: list[relax.Expr], t: Translator) -> list[relax.Expr]:
    for value, result in zip(node.meta["val"], results, strict=True):
        remember(value, result, t)
    return results


CONTROL: dict[str, Converter] = {
    "cond": cond,
    "map_impl": map_,
    "scan": scan_,
    "while_loop": while_loop,
}
