"""Sequences and optionals, where their lengths and presence are known at import.

A sequence is a Relax tuple. An optional that holds something is that itself; one that is empty
is None. What a model does with them is done at import: nothing of it is left at run time but
the choice among elements by a position known only then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from burnish.compiler.importers import repeat
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Refused, Result, converts

op = relax.op

Items = list[Any]


def items(node: Node, value: Any) -> Items:
    """The elements of a sequence."""
    if isinstance(value, relax.Tuple):
        return list(value.fields)
    if isinstance(getattr(value, "ty", None), relax.TupleType):
        return [node.emit(relax.TupleGetItem(value, i)) for i in range(len(value.ty.fields))]
    raise Refused("a sequence whose length is known only at run time")


@converts("Identity")
def identity(node: Node) -> Result:
    return (node.inputs[0],)


@converts("SequenceEmpty")
def sequence_empty(node: Node) -> Result:
    return relax.Tuple([])


@converts("SequenceConstruct")
def sequence_construct(node: Node) -> Result:
    return relax.Tuple(node.inputs)


@converts("SequenceLength")
def sequence_length(node: Node) -> Result:
    return relax.const(np.array(len(items(node, node.inputs[0])), np.int64), "int64")


@converts("SequenceAt")
def sequence_at(node: Node) -> Result:
    """The element at a position, negative ones from the end; one known at run time by a look-up."""
    found = items(node, node.inputs[0])
    known = node.value(1)
    if known is not None:
        return (found[_position(int(known.reshape(-1)[0]), len(found), len(found) - 1)],)
    _alike(found)
    index = _from_start(node, 1, len(found))
    return op.take(node.emit(op.stack(found, 0)), index, axis=0, mode="clip")


@converts("SequenceInsert")
def sequence_insert(node: Node) -> Result:
    """A tensor put before a position, or at the end."""
    found, new = items(node, node.inputs[0]), node.inputs[1]
    if node.input(2) is None:
        return relax.Tuple([*found, new])
    known = node.value(2)
    if known is not None:
        at = _position(int(known.reshape(-1)[0]), len(found), len(found))
        return relax.Tuple([*found[:at], new, *found[at:]])
    _alike([*found, new])
    index = _from_start(node, 2, len(found))
    before, after = [*found, new], [new, *found]
    return relax.Tuple(
        [
            _chosen(node, index, i, before[i], _chosen(node, index, i - 1, new, after[i]))
            for i in range(len(found) + 1)
        ]
    )


@converts("SequenceErase")
def sequence_erase(node: Node) -> Result:
    """Without the element at a position, or the last."""
    found = items(node, node.inputs[0])
    known = np.array(-1) if node.input(1) is None else node.value(1)
    if known is not None:
        at = _position(int(known.reshape(-1)[0]), len(found), len(found) - 1)
        return relax.Tuple([*found[:at], *found[at + 1 :]])
    _alike(found)
    index = _from_start(node, 1, len(found))
    return relax.Tuple(
        [_chosen(node, index, i, found[i], found[i + 1]) for i in range(len(found) - 1)]
    )


def _position(at: int, length: int, last: int) -> int:
    if not -length <= at <= last:
        raise ValueError(f"position {at} of a sequence of {length}")
    return at + length if at < 0 else at


def _alike(found: Items) -> None:
    if not found or any(not repeat.same_type(v.ty, found[0].ty) for v in found):
        raise Refused(
            "a position known only at run time in a sequence of different shapes: give the "
            "position at import (an initializer, or a plain number among example_inputs)"
        )


def _from_start(node: Node, at: int, length: int) -> relax.Expr:
    """A position, counted from the start."""
    index = node.emit(op.astype(node.inputs[at], "int64"))
    if node.ndim(at) != 0:
        index = node.emit(op.reshape(index, []))
    size, zero = relax.const(np.int64(length), "int64"), relax.const(np.int64(0), "int64")
    wrapped = node.emit(op.add(index, size))
    return node.emit(op.where(node.emit(op.less(index, zero)), wrapped, index))


def _chosen(node: Node, index: relax.Expr, i: int, a: relax.Expr, b: relax.Expr) -> relax.Expr:
    """``a`` where the position is behind ``i``, else ``b``."""
    behind = node.emit(op.greater(index, relax.const(np.int64(i), "int64")))
    return node.emit(op.where(behind, a, b))


@converts("SplitToSequence")
def split_to_sequence(node: Node) -> Result:
    """Parts along an axis: of one size, of sizes given, or single ones without that axis."""
    x = node.inputs[0]
    axis = int(node.attrs.get("axis", 0)) % node.ndim(0)
    shape = node.shape(0)
    size = None if shape is None else shape[axis]
    if not isinstance(size, int):
        raise Refused(f"axis {axis} of open size: fix it in example_inputs")
    if node.input(1) is None:
        sizes = [1] * size
    else:
        given = node.value(1)
        if given is None:
            raise Refused("sizes known only at run time: give split as an initializer")
        if given.ndim == 0:
            each = int(given)
            sizes = [min(each, size - start) for start in range(0, size, each)]
        else:
            sizes = [int(n) for n in given]
    if sum(sizes) != size or any(n < 0 for n in sizes):
        raise ValueError(f"sizes {sizes} of an axis of {size}")
    squeezed = node.input(1) is None and not node.attrs.get("keepdims", 1)
    parts, start = [], 0
    for length in sizes:
        part = node.emit(
            op.strided_slice(x, [axis], [start], [start + length], assume_inbound=True)
        )
        parts.append(node.emit(op.squeeze(part, [axis])) if squeezed else part)
        start += length
    return relax.Tuple(parts)


@converts("ConcatFromSequence")
def concat_from_sequence(node: Node) -> Result:
    found = items(node, node.inputs[0])
    if not found:
        raise Refused("an empty sequence has nothing to join")
    rank = int(found[0].ty.ndim)
    new = bool(node.attrs.get("new_axis", 0))
    axis = int(node.attrs["axis"]) % (rank + new)
    return op.stack(found, axis) if new else op.concat(found, axis)


@converts("SequenceMap")
def sequence_map(node: Node) -> Result:
    """A body for each element of the first sequence; other sequences are as long."""
    body = node.attrs["body"]
    names = [value.name for value in body.input]
    first = items(node, node.inputs[0])
    columns = [first]
    for value in node.inputs[1:]:
        is_sequence = isinstance(getattr(value, "ty", None), relax.TupleType)
        is_sequence = is_sequence or isinstance(value, relax.Tuple)
        columns.append(items(node, value) if is_sequence else [value] * len(first))
    if any(len(column) != len(first) for column in columns):
        raise ValueError(f"sequences of {[len(column) for column in columns]} elements")
    rows = [
        node.graph.inlined(body, dict(zip(names, row, strict=True)))
        for row in zip(*columns, strict=True)
    ]
    return tuple(relax.Tuple([row[i] for row in rows]) for i in range(len(node.outputs)))


@converts("Optional")
def optional(node: Node) -> Result:
    return (node.input(0),)


@converts("OptionalHasElement")
def optional_has_element(node: Node) -> Result:
    return relax.const(np.array(node.input(0) is not None), "bool")


@converts("OptionalGetElement")
def optional_get_element(node: Node) -> Result:
    if node.input(0) is None:
        raise Refused("the optional is empty")
    return (node.inputs[0],)
