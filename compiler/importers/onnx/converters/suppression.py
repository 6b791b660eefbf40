"""NonMaxSuppression as one kernel of its own, and a cut to the number of boxes found."""

from __future__ import annotations

import math
from typing import Any

from tvm import relax, te, tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from burnish.compiler.importers.onnx.emit import astype, const, fixed, kernel, op, ranked, setting
from burnish.compiler.importers.onnx.node import Node
from burnish.compiler.importers.onnx.registry import Result, converts


@converts("NonMaxSuppression", since=10)
def non_max_suppression(node: Node) -> Result:
    """``boxes [B, N, 4], scores [B, C, N] -> [selected, 3]``: batch, class, box.

    Boxes of a class are taken by falling score, those above ``score_threshold`` only, and none
    whose overlap with one taken is above ``iou_threshold``. Of equal scores the first comes first.
    """
    (boxes,) = fixed(node, ranked(node)[1:2], "the number of boxes")
    batches, classes = fixed(node, ranked(node, 1)[:2], "the numbers of batches and classes")
    most = 0
    if node.input(2) is not None:
        most = int(setting(node, 2, "max_output_boxes_per_class").item())
    most = max(min(most, boxes), 0)
    rows = batches * classes * most
    if rows == 0:
        return op.zeros(relax.ShapeExpr([0, 3]), "int64")
    overlap = _scalar(node, node.input(3), 0.0)
    lowest = _scalar(node, node.input(4), -math.inf)
    center = bool(node.attrs.get("center_point_box", 0))
    make = _suppress(batches, classes, boxes, most, rows, center=center)
    made = kernel(node, make, *node.inputs[:2], overlap, lowest, name="non_max_suppression")
    found, count = (node.emit(relax.TupleGetItem(made, i)) for i in range(2))

    def mark(total: te.Tensor) -> te.Tensor:
        return te.compute((rows,), lambda i: i.astype("int64") < total[0], name="found")

    places = node.emit(op.nonzero(kernel(node, mark, count, name="found")))
    size = tirx.Var("selected", "int64")
    places = node.bb.match_cast(places, relax.TensorType([1, size], "int64"))
    return op.take(found, node.emit(op.reshape(places, [size])), axis=0, mode="fast")


def _scalar(node: Node, value: relax.Expr | None, default: float) -> relax.Expr:
    if value is None:
        return const([default], "float32")
    return node.emit(op.reshape(astype(value, "float32"), [1]))


def _suppress(batches: int, classes: int, boxes: int, most: int, rows: int, *, center: bool) -> Any:
    """``boxes, scores, overlap [1], lowest [1] -> selected [rows, 3], count [1]``."""

    def make(box: te.Tensor, score: te.Tensor, overlap: te.Tensor, lowest: te.Tensor) -> Any:
        def body(ins: Any, outs: Any) -> Any:
            # One root: a builder holds no more than one statement.
            with IRBuilder() as builder:
                with T.serial(0, 1):
                    b, s, limit, floor = (T.buffer_proxy(x) for x in ins)
                    selected, count = (T.buffer_proxy(x) for x in outs)
                    state = T.buffer_proxy(T.alloc_buffer((boxes,), "int8", scope="global"))
                    best = T.buffer_proxy(T.alloc_buffer((1,), "int64", scope="local"))
                    count[0] = T.int64(0)
                    with T.serial(0, rows) as row:
                        for column in range(3):
                            selected[row, column] = T.int64(0)
                    with T.serial(0, batches) as n, T.serial(0, classes) as c:
                        with T.serial(0, boxes) as i:
                            state[i] = (s[n, c, i] > floor[0]).astype("int8")
                        with T.serial(0, most):
                            _find_best(s, state, best, n, c, boxes)
                            with T.If(best[0] >= T.int64(0)), T.Then():
                                for column, value in enumerate((n, c, best[0])):
                                    selected[count[0], column] = tirx.Cast("int64", value)
                                count[0] = count[0] + T.int64(1)
                                state[best[0]] = T.int8(0)
                                with T.serial(0, boxes) as i:
                                    over = _overlap(b, n, best[0], i, center=center)
                                    gone = tirx.all(state[i] != T.int8(0), over > limit[0])
                                    with T.If(gone), T.Then():
                                        state[i] = T.int8(0)
                return builder.get()

        return te.extern(
            [(rows, 3), (1,)],
            [box, score, overlap, lowest],
            body,
            dtype=["int64", "int64"],
            name="non_max_suppression",
        )

    return make


def _find_best(s: Any, state: Any, best: Any, n: Any, c: Any, boxes: int) -> None:
    """Write into ``best[0]`` the first box of the highest score that is left, or -1."""
    best[0] = T.int64(-1)
    with T.serial(0, boxes) as i:
        ahead = s[n, c, i] > s[n, c, tirx.max(best[0], T.int64(0))]
        better = tirx.all(state[i] != T.int8(0), tirx.any(best[0] < T.int64(0), ahead))
        with T.If(better), T.Then():
            best[0] = tirx.Cast("int64", i)


def _overlap(b: Any, n: Any, i: Any, j: Any, *, center: bool) -> Expr:
    """Area of the intersection of two boxes over that of their union; 0 of empty boxes."""
    first, second = (_corners(b, n, k, center=center) for k in (i, j))
    zero = T.float32(0.0)
    sides = [
        tirx.max(
            tirx.min(first[axis + 2], second[axis + 2]) - tirx.max(first[axis], second[axis]), zero
        )
        for axis in range(2)
    ]
    common = sides[0] * sides[1]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    union = areas[0] + areas[1] - common
    valid = tirx.all(areas[0] > zero, areas[1] > zero, union > zero)
    return tirx.Select(valid, common / tirx.Select(valid, union, T.float32(1.0)), zero)


def _corners(b: Any, n: Any, i: Any, *, center: bool) -> list[Expr]:
    """Lower and upper corner: two of one axis each, in any order, or a middle and sizes."""
    v = [b[n, i, k] for k in range(4)]
    if center:
        half = T.float32(0.5)
        return [v[0] - v[2] * half, v[1] - v[3] * half, v[0] + v[2] * half, v[1] + v[3] * half]
    return [
        tirx.min(v[0], v[2]),
        tirx.min(v[1], v[3]),
        tirx.max(v[0], v[2]),
        tirx.max(v[1], v[3]),
    ]
