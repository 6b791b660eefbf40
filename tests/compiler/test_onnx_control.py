"""If, Loop, Scan, sequences and optionals of ONNX, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from import_support import compiled
from kernel_support import Built, lowered
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node as node

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import import_model

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def info(name: str, dtype: int = FLOAT, shape: Any = None) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def graph(
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    weights: dict[str, np.ndarray] | None = None,
) -> GraphProto:
    tensors = [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()]
    return helper.make_graph(nodes, "g", inputs, outputs, tensors)


def model(*args: Any, opset: int = 17, **kwargs: Any) -> ModelProto:
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph(*args, **kwargs), opset_imports=opsets, ir_version=9)


def runtime(proto: ModelProto, *inputs: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(zip([i.name for i in session.get_inputs()], inputs, strict=True)))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def check(proto: ModelProto, *inputs: Any, at: Any = None, times: int = 1) -> Built:
    """Numbers as ONNX Runtime gives them, by our pipeline and by TVM's own; ``at`` at import."""
    read = import_model(proto, at if at is not None else inputs, fold=False)
    flat = read.signature.flatten(inputs)
    build = Built(lowered(read.mod))
    for run in (build, compiled(read.mod)):
        got = read.signature.unflatten(run(*flat))
        same(got, runtime(proto, *inputs))
    return build


def same(got: Any, want: Any) -> None:
    if isinstance(want, list):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            same(a, b)
    else:
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def branch(op: str, name: str) -> GraphProto:
    return graph([node(op, ["x"], [name])], [], [info(name)])


def conditional(**more: Any) -> ModelProto:
    return model(
        [
            node(
                "If", ["c"], ["y"],
                then_branch=branch("Relu", "a"), else_branch=branch("Neg", "b"), **more,
            )
        ],
        [info("x", FLOAT, [2, 3]), info("c", BOOL, [])],
        [info("y")],
    )  # fmt: skip


def test_the_branch_is_chosen_at_run_time_or_at_import() -> None:
    x = normal(2, 3)
    for choice in (True, False):
        check(conditional(), x, np.array(choice))
        read = import_model(conditional(), (x, choice), fold=False)
        same(compiled(read.mod)(x), runtime(conditional(), x, np.array(choice)))


def test_branches_of_different_shapes_are_refused() -> None:
    proto = conditional()
    other = graph([node("Flatten", ["x"], ["b"], axis=0)], [], [info("b")])
    proto.graph.node[0].attribute[1].g.CopyFrom(other)
    with pytest.raises(ImportModelError, match=r"If.*branches give float32\[.*known at import"):
        import_model(proto, (normal(2, 3), np.array(True)), fold=False)


def looping(rows: bool, condition: str = "Identity", opset: int = 17) -> ModelProto:
    """``v = tanh(v @ w) + i``, its sum as a row; goes on as the condition says."""
    nodes = [
        node("MatMul", ["v", "w"], ["p"]),
        node("Tanh", ["p"], ["t"]),
        node("Cast", ["i"], ["f"], to=FLOAT),
        node("Mul", ["f", "small"], ["s"]),
        node("Add", ["t", "s"], ["v_out"]),
    ]
    if condition == "Identity":
        nodes.append(node("Identity", ["go"], ["go_out"]))
    else:
        nodes += [
            node("ReduceSum", ["v_out"], ["sum"], keepdims=0),
            node("Less", ["sum", "limit"], ["go_out"]),
        ]
    if rows:
        nodes.append(node("ReduceMax", ["v_out"], ["row"], axes=[0], keepdims=0))
    body = graph(
        nodes,
        [info("i", INT64, []), info("go", BOOL, []), info("v", FLOAT, [2, 3])],
        [info("go_out", BOOL, []), info("v_out", FLOAT, [2, 3])]
        + ([info("row", FLOAT, [3])] if rows else []),
    )
    return model(
        [node("Loop", ["m", "c", "x"], ["y", "r"][: 1 + rows], body=body)],
        [info("m", INT64, []), info("c", BOOL, []), info("x", FLOAT, [2, 3])],
        [info("y"), info("r")][: 1 + rows],
        {"w": normal(3, 3) * 0.5, "small": np.float32(0.1), "limit": np.float32(4)},
        opset=opset,
    )


@pytest.mark.parametrize("trips", [0, 1, 5, 77])
def test_a_number_of_trips_known_at_import(trips: int) -> None:
    """77 become functions; so that the code does not grow with the trips."""
    x = normal(2, 3)
    arguments = (np.array(trips), np.array(True), x)
    build = check(looping(rows=True), *arguments, at=(trips, True, x))
    if trips == 77:
        assert len(build.kernels) < 40


@pytest.mark.parametrize("condition", ["Identity", "Less"])
def test_trips_counted_at_run_time(condition: str) -> None:
    proto, x = looping(rows=False, condition=condition), normal(2, 3)
    read = import_model(proto, (np.array(1), np.array(True), x), fold=False)
    build = Built(lowered(read.mod))
    for trips in (0, 1, 2, 3, 20, 1000):
        for go in (True, False):
            arguments = (np.array(trips), np.array(go), x)
            same(build(*arguments), runtime(proto, *arguments))


def test_rows_of_an_unknown_number_of_trips_are_refused() -> None:
    message = r"Loop.*trips.*only at run time: give the trip count at import"
    with pytest.raises(ImportModelError, match=message):
        import_model(looping(rows=True), (np.array(3), np.array(True), normal(2, 3)), fold=False)
    with pytest.raises(ImportModelError, match=r"Loop.*whether it goes on.*stay true"):
        import_model(looping(rows=True, condition="Less"), (3, True, normal(2, 3)), fold=False)


def test_a_state_that_grows_is_written_out_or_refused() -> None:
    body = graph(
        [node("Concat", ["v", "x"], ["v_out"], axis=0), node("Identity", ["go"], ["go_out"])],
        [info("i", INT64, []), info("go", BOOL, []), info("v")],
        [info("go_out", BOOL, []), info("v_out")],
    )
    proto = model(
        [node("Loop", ["m", "", "x"], ["y"], body=body)],
        [info("m", INT64, []), info("x", FLOAT, [2, 3])],
        [info("y")],
    )
    x = normal(2, 3)
    check(proto, np.array(4), x, at=(4, x))
    with pytest.raises(ImportModelError, match=r"Loop.*changes from .*fixed number of rounds"):
        import_model(proto, (np.array(4), x), fold=False)


def scanning(steps: int, opset: int = 17, **attrs: Any) -> tuple[ModelProto, list[np.ndarray]]:
    """A state that is added to, over two inputs, one of them scanned along its last axis."""
    body = graph(
        [
            node("Add", ["s", "a"], ["t"]),
            node("Mul", ["t", "b"], ["u"]),
            node("Tanh", ["u"], ["s_out"]),
            node("Identity", ["s_out"], ["row"]),
            node("Neg", ["t"], ["other"]),
        ],
        [info(n, FLOAT, [4]) for n in "sab"],
        [info(n, FLOAT, [4]) for n in ("s_out", "row", "other")],
    )
    proto = model(
        [node("Scan", ["s0", "p", "q"], ["y", "rows", "others"], num_scan_inputs=2, body=body,
              scan_input_axes=[0, -1], scan_input_directions=[1, 0],
              scan_output_axes=[1, 0], scan_output_directions=[0, 1])],
        [info("s0", FLOAT, [4]), info("p", FLOAT, [steps, 4]), info("q", FLOAT, [4, steps])],
        [info("y"), info("rows"), info("others")],
        opset=opset,
    )  # fmt: skip
    return proto, [normal(4), normal(steps, 4), normal(4, steps)]


@pytest.mark.parametrize("steps", [1, 6, 75])
def test_scans_along_axes_and_backwards(steps: int) -> None:
    proto, inputs = scanning(steps)
    build = check(proto, *inputs)
    assert len(build.kernels) < 60


def test_a_scan_over_batches() -> None:
    body = graph(
        [node("Add", ["s", "a"], ["s_out"]), node("Identity", ["s_out"], ["row"])],
        [info("s", FLOAT, [2]), info("a", FLOAT, [2])],
        [info("s_out", FLOAT, [2]), info("row", FLOAT, [2])],
    )
    proto = model(
        [node("Scan", ["", "s0", "p"], ["y", "rows"], num_scan_inputs=1, body=body,
              directions=[1])],
        [info("s0", FLOAT, [3, 2]), info("p", FLOAT, [3, 5, 2])],
        [info("y"), info("rows")],
        opset=8,
    )  # fmt: skip
    check(proto, normal(3, 2), normal(3, 5, 2))


def test_sequences_are_taken_apart_and_joined() -> None:
    proto = model(
        [
            node("SplitToSequence", ["x", "sizes"], ["s"], axis=1),
            node("SequenceLength", ["s"], ["n"]),
            node("SequenceAt", ["s", "last"], ["a"]),
            node("SequenceErase", ["s", "first"], ["t"]),
            node("SequenceInsert", ["t", "x", "first"], ["u"]),
            node("ConcatFromSequence", ["u"], ["c"], axis=1),
            node("SplitToSequence", ["x"], ["rows"], axis=0, keepdims=0),
            node("ConcatFromSequence", ["rows"], ["z"], axis=-1, new_axis=1),
        ],
        [info("x", FLOAT, [2, 6])],
        [info("n", INT64), info("a"), info("c"), info("z")],
        {"sizes": np.array([1, 3, 2]), "last": np.array(-1), "first": np.array(0)},
    )
    check(proto, normal(2, 6))


@pytest.mark.parametrize("position", [0, 1, 2, -1, -3])
def test_positions_known_at_run_time(position: int) -> None:
    proto = model(
        [
            node("SequenceConstruct", ["x", "y", "x"], ["s"]),
            node("SequenceAt", ["s", "p"], ["a"]),
            node("SequenceErase", ["s", "p"], ["e"]),
            node("ConcatFromSequence", ["e"], ["b"], axis=0),
            node("SequenceInsert", ["s", "z", "p"], ["i"]),
            node("ConcatFromSequence", ["i"], ["c"], axis=0),
        ],
        [*[info(n, FLOAT, [2]) for n in "xyz"], info("p", INT64, [])],
        [info("a"), info("b"), info("c")],
    )
    check(proto, normal(2), normal(2) + 1, normal(2) - 1, np.array(position))


def test_sequences_go_in_and_come_out() -> None:
    proto = model(
        [
            node("SequenceMap", ["s", "x"], ["t"], body=graph(
                [node("Add", ["e", "k"], ["o"])],
                [info("e", FLOAT, [2]), info("k", FLOAT, [2])], [info("o", FLOAT, [2])])),
            node("SequenceAt", ["t", "zero"], ["y"]),
        ],
        [helper.make_tensor_sequence_value_info("s", FLOAT, [2]), info("x", FLOAT, [2])],
        [helper.make_tensor_sequence_value_info("t", FLOAT, None), info("y")],
        {"zero": np.array(0)},
    )  # fmt: skip
    check(proto, [normal(2), normal(2) + 1, normal(2) + 2], normal(2))
    with pytest.raises(ImportModelError, match=r"'s' is a sequence.*give example_inputs"):
        import_model(proto, fold=False)


def test_optionals_are_known_at_import() -> None:
    tensor = helper.make_tensor_type_proto(FLOAT, [2])
    proto = model(
        [
            node("OptionalHasElement", ["o"], ["h"]),
            node("If", ["h"], ["y"],
                 then_branch=graph([node("OptionalGetElement", ["o"], ["a"])], [], [info("a")]),
                 else_branch=graph([node("Identity", ["x"], ["b"])], [], [info("b")])),
        ],
        [helper.make_value_info("o", helper.make_optional_type_proto(tensor)),
         info("x", FLOAT, [2])],
        [info("y")],
        opset=18,
    )  # fmt: skip
    x = normal(2)
    for given, want in ((x + 1, x + 1), (None, x)):
        read = import_model(proto, {"o": given, "x": x}, fold=False)
        same(compiled(read.mod)(*read.signature.flatten((given, x))), [want])


def test_what_is_refused_inside_is_listed_itself() -> None:
    body = graph([node("StringNormalizer", ["x"], ["a"], name="inner")], [], [info("a")])
    proto = conditional()
    proto.graph.node[0].attribute[1].g.CopyFrom(body)
    with pytest.raises(ImportModelError, match=r"1 ONNX operator .*StringNormalizer x1 \(inner"):
        import_model(proto, (normal(2, 3), np.array(True)), fold=False)
