"""If, Loop and Scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from tvm import relax

from burnish.compiler.importers import repeat
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts
from burnish.compiler.importers.steps import Scanned, index, scan, stacked

op = relax.op


@converts("If")
def if_(node: Node) -> Result:
    """The branch taken is computed, the other is not; one known at import is written out."""
    known = node.value(0)
    if known is not None:
        taken = "then_branch" if bool(known.reshape(-1)[0]) else "else_branch"
        return tuple(node.graph.inlined(node.attrs[taken], {}))
    condition = node.inputs[0]
    if node.ndim(0) != 0:
        condition = node.emit(op.reshape(condition, []))
    then = node.graph.branch(node.attrs["then_branch"], {})
    other = node.graph.branch(node.attrs["else_branch"], {})
    if not repeat.same_type(then.body.ty, other.body.ty):
        raise Refused(
            f"its branches give {_types(then.body.ty)} and {_types(other.body.ty)}: what one gives "
            "must have the types and shapes of the other, or the condition be known at import"
        )
    result = node.emit(relax.If(condition, then, other))
    if len(node.outputs) == 1:
        return result
    return tuple(node.emit(relax.TupleGetItem(result, i)) for i in range(len(node.outputs)))


@converts("Loop")
def loop(node: Node) -> Result:
    """``trips, condition, *carried -> *carried, *rows``; rows are stacked along a new first axis.

    A number of trips known at import is written out, or becomes functions (``repeat``); one that
    is not, or a condition that the body computes, becomes functions, if there are no rows.
    """
    body = node.attrs["body"]
    carried = list(node.inputs[2:])
    rows = len(body.output) - 1 - len(carried)
    trips, known = node.input(0), node.value(0)
    start = None if node.input(1) is None else node.value(1)
    goes = node.input(1) is None or (start is not None and bool(start.reshape(-1)[0]))
    if start is not None and not goes:
        return (*carried, *_no_rows(node, body, carried, rows))
    count = None if known is None else max(0, int(known.reshape(-1)[0]))
    if count is not None and goes:
        if repeat.few(count, len(body.node)):
            return _written_out(node, body, carried, rows, count)
        if _always(body):
            return _many(node, body, carried, rows, count)
    if rows:
        raise Refused(
            "the number of its trips, and so of the rows it gives, is known only at run time: give "
            "the trip count at import (an initializer, or a plain number among example_inputs), "
            "and a condition that stays true"
        )
    return tuple(_open(node, body, carried, trips))


def _run(
    node: Node, body: onnx.GraphProto, index: relax.Expr, condition: Any, carried: list[Any]
) -> list[Any]:
    names = [value.name for value in body.input]
    return node.graph.inlined(body, dict(zip(names, [index, condition, *carried], strict=True)))


def _true() -> relax.Expr:
    return relax.const(np.array(True), "bool")


def _written_out(
    node: Node, body: onnx.GraphProto, carried: list[Any], rows: int, count: int
) -> Result:
    stacks: list[list[relax.Expr]] = [[] for _ in range(rows)]
    first = carried
    for trip in range(count):
        condition = _true()
        results = _run(node, body, index(trip), condition, carried)
        goes = node.graph.constant(results[0])
        carried = results[1 : 1 + len(carried)]
        for stack, row in zip(stacks, results[1 + len(carried) :], strict=True):
            stack.append(row)
        if goes is None and trip + 1 < count:
            if rows:
                raise Refused(
                    "its body computes at run time whether it goes on, so that the number of the "
                    "rows it gives is not known: let the condition stay true"
                )
            return tuple(_open(node, body, first, index(count)))
        if goes is not None and not bool(goes.reshape(-1)[0]):
            break
    if not stacks or stacks[0]:
        return (*carried, *[stacked(node.bb, stack) for stack in stacks])
    return (*carried, *_no_rows(node, body, carried, rows))


def _no_rows(node: Node, body: onnx.GraphProto, carried: list[Any], rows: int) -> list[relax.Expr]:
    """Rows of no trip at all: shapes as a trip would give them."""
    if not rows:
        return []
    results = _run(node, body, index(0), _true(), carried)
    return [
        node.emit(op.zeros(relax.ShapeExpr([0, *list(row.ty.shape)]), str(row.ty.dtype)))
        for row in results[1 + len(carried) :]
    ]


def _always(body: onnx.GraphProto) -> bool:
    """Whether the condition a body gives is the one it was given, or is always true."""
    made = {name: n for n in body.node for name in n.output}
    constants = {tensor.name: tensor for tensor in body.initializer}
    name = body.output[0].name
    while name in made and made[name].op_type == "Identity":
        name = made[name].input[0]
    if name in constants:
        return bool(np.all(onnx.numpy_helper.to_array(constants[name])))
    return name == body.input[1].name


def _many(node: Node, body: onnx.GraphProto, carried: list[Any], rows: int, count: int) -> Result:
    _tensors_only(carried)
    node.graph.allow_branches()

    def one(state: list[relax.Expr]) -> tuple[list[relax.Expr], list[relax.Expr]]:
        results = _run(node, body, state[0], _true(), state[1:])
        following = node.emit(op.add(state[0], index(1)))
        cut = 1 + len(carried)
        given = [node.emit(op.expand_dims(row, 0)) for row in results[cut:]]
        return [following, *results[1:cut]], given

    state, given = repeat.repeat(node.bb, one, [index(0), *carried], count)
    return (*state[1:], *given)


def _open(
    node: Node, body: onnx.GraphProto, carried: list[Any], trips: relax.Expr | None
) -> list[relax.Expr]:
    """Trips until the condition or the trip count, known at run time, says stop."""
    _tensors_only(carried)
    node.graph.allow_branches()
    last = None if trips is None else _scalar(node, op.astype(trips, "int64"))

    def goes(condition: relax.Expr, index: relax.Expr) -> relax.Expr:
        condition = _scalar(node, condition)
        if last is None:
            return condition
        return node.emit(op.logical_and(condition, node.emit(op.less(index, last))))

    def one(state: list[relax.Expr]) -> tuple[list[relax.Expr], list[relax.Expr]]:
        results = _run(node, body, state[1], _true(), state[2:])
        following = node.emit(op.add(state[1], index(1)))
        return [goes(results[0], following), following, *results[1:]], []

    given = node.input(1)
    begin = index(0)
    condition = _true() if given is None else given
    return repeat.repeat_while(node.bb, one, [goes(condition, begin), begin, *carried])[2:]


def _scalar(node: Node, value: relax.Expr) -> relax.Expr:
    value = node.emit(value)
    return value if int(value.ty.ndim) == 0 else node.emit(op.reshape(value, []))


def _tensors_only(values: list[Any]) -> None:
    if not all(isinstance(v, relax.Expr) and isinstance(v.ty, relax.TensorType) for v in values):
        raise Refused(
            "it carries a sequence through trips that are not written out: give a trip count of at "
            f"most {repeat.WRITTEN_OUT} at import"
        )


@converts("Scan", since=9)
def scan_(node: Node) -> Result:
    """``*states, *inputs -> *states, *rows``: a step for each index of an axis of the inputs."""
    count = int(node.attrs["num_scan_inputs"])
    states, inputs = node.inputs[:-count], node.inputs[-count:]
    state, rows = _scanned(node, states, inputs, "scan_input_axes", "scan_input_directions")
    axes, ways = (node.attrs.get(f"scan_output_{n}") or [] for n in ("axes", "directions"))
    return (*state, *[_placed(node, row, i, axes, ways) for i, row in enumerate(rows)])


@converts("Scan", since=8)
def scan_of_batches(node: Node) -> Result:
    """Version 8: every tensor has a batch in front, each element of it is scanned by itself."""
    count = int(node.attrs["num_scan_inputs"])
    given = node.inputs[1:]
    batch = [node.shape(i)[0] for i in range(1, len(node.inputs)) if node.shape(i)]  # type: ignore[index]
    if not batch or not isinstance(batch[0], int):
        raise Refused("a batch of open size: fix it in example_inputs")
    if node.input(0) is not None:
        lengths = node.value(0)
        steps = node.shape(len(node.inputs) - 1)
        if lengths is None or steps is None or (lengths != steps[1]).any():
            raise Refused("sequence_lens has no converter: every sequence must be taken whole")
    parts = []
    for place in range(batch[0]):
        one = [_at(node, value, place, 0) for value in given]
        state, rows = _scanned(node, one[:-count], one[-count:], "", "directions")
        parts.append([*state, *rows])
    return tuple(node.emit(op.stack(list(column), 0)) for column in zip(*parts, strict=True))


def _scanned(
    node: Node, states: list[Any], inputs: list[Any], axes_name: str, ways_name: str
) -> tuple[list[Any], list[relax.Expr]]:
    """All steps; rows are stacked along a new first axis."""
    body = node.attrs["body"]
    given_axes = node.attrs.get(axes_name) or [0] * len(inputs)
    ways = node.attrs.get(ways_name) or [0] * len(inputs)
    axes = [
        int(axis) % max(int(value.ty.ndim), 1)
        for axis, value in zip(given_axes, inputs, strict=True)
    ]
    sizes = {
        _int(value.ty.shape[axis]) if value.ty.shape is not None else None
        for value, axis in zip(inputs, axes, strict=True)
    }
    size = sizes.pop()
    if sizes or size is None:
        raise Refused("the number of its steps is open: fix the size in example_inputs")
    names = [value.name for value in body.input]
    count = len(states)

    def one(state: list[Any], rows: list[Any]) -> tuple[list[Any], list[Any]]:
        results = node.graph.inlined(body, dict(zip(names, [*state, *rows], strict=True)))
        return results[:count], results[count:]

    if size == 0:
        raise Refused("a scan over no steps at all")
    if not repeat.few(size, len(body.node)):
        node.graph.allow_branches()
    read = [
        Scanned(value, axis, bool(way)) for value, axis, way in zip(inputs, axes, ways, strict=True)
    ]
    return scan(node.bb, one, list(states), read, size, len(body.node))


def _at(node: Node, value: relax.Expr, place: int, axis: int) -> relax.Expr:
    part = op.strided_slice(value, [axis], [place], [place + 1], assume_inbound=True)
    return node.emit(op.squeeze(node.emit(part), [axis]))


def _placed(
    node: Node, rows: relax.Expr, index: int, axes: list[int], ways: list[int]
) -> relax.Expr:
    """Rows in their order and along their axis."""
    if ways and ways[index]:
        rows = node.emit(op.flip(rows, 0))
    axis = int(axes[index]) % int(rows.ty.ndim) if axes else 0
    if axis:
        order = list(range(1, int(rows.ty.ndim)))
        order.insert(axis, 0)
        rows = node.emit(op.permute_dims(rows, order))
    return rows


def _int(size: Any) -> int | None:
    return int(size) if hasattr(size, "value") or isinstance(size, int) else None


def _types(ty: Any) -> str:
    if isinstance(ty, relax.TupleType):
        return f"({', '.join(_types(field) for field in ty.fields)})"
    shape = getattr(ty, "shape", None)
    return f"{getattr(ty, 'dtype', ty)}{'?' if shape is None else list(shape)}"
