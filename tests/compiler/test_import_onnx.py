"""ONNX models: pinned, folded, named weights, numbers as in ONNX Runtime; refusals by message."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from import_support import compiled, worst
from onnx import ModelProto, TensorProto, helper, numpy_helper

from burnish.compiler.errors import ImportModelError, UnsupportedOperatorError
from burnish.compiler.importers import import_model
from burnish.passes.params import get_params, input_vars, weight_vars
from relax_support import op_names

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)


def tensor(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def model(
    nodes: list[Any],
    inputs: dict[str, tuple],
    outputs: list[str],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    functions: tuple = (),
    domains: tuple[str, ...] = (),
) -> ModelProto:
    """A model; an input is (element type, shape), an output is a float of unknown shape."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, *spec) for n, spec in inputs.items()],
        [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid(d, 1) for d in domains] + [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)


def network() -> ModelProto:
    """Convolution, batch norm, clip, and a reshape whose target is computed from the input."""
    node = helper.make_node
    return model(
        [
            node("Conv", ["x.1", "conv.w", "conv.b"], ["c"], pads=[1, 1, 1, 1]),
            node("BatchNormalization", ["c", "bn.g", "bn.b", "bn.m", "bn.v"], ["n"]),
            node("Clip", ["n", "low", "high"], ["r"]),
            node("Shape", ["r"], ["shape"]),
            node("Gather", ["shape", "first"], ["rows"]),
            node("Concat", ["rows", "rest"], ["target"], axis=0),
            node("Reshape", ["r", "target"], ["flat"]),
            node("Gemm", ["flat", "head.w", "head.b"], ["y"], transB=1),
        ],
        {"x.1": (FLOAT, ["batch", 3, "height", 8])},
        ["y"],
        {
            "conv.w": tensor(4, 3, 3, 3),
            "conv.b": tensor(4),
            "bn.g": tensor(4),
            "bn.b": tensor(4),
            "bn.m": tensor(4),
            "bn.v": np.abs(tensor(4)) + 0.5,
            "low": np.float32(0),
            "high": np.float32(6),
            "first": np.array([0]),
            "rest": np.array([-1]),
            "head.w": tensor(5, 256),
            "head.b": tensor(5),
        },
    )


def runtime(proto: ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def test_a_network_under_its_names() -> None:
    proto = network()
    before = proto.SerializeToString()
    read = import_model(proto, (IMAGE,))
    assert proto.SerializeToString() == before
    assert read.kind == "onnx"
    assert read.source is proto

    assert [str(spec) for spec in read.signature.inputs] == ["x.1: float32[2, 3, 8, 8]"]
    assert [var.name for var in input_vars(read.mod)] == ["x_1"]
    assert [str(spec) for spec in read.signature.outputs] == ["y: float32[2, 5]"]
    assert read.signature.unflatten([1]) == [1]
    # Batch norm is not folded here: our own pass does that, under these names.
    assert {var.name for var in weight_vars(read.mod)} == {
        "conv.w",
        "conv.b",
        "bn.g",
        "bn.b",
        "bn.m",
        "bn.v",
        "head.w",
        "head.b",
    }
    weights = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    for name, value in get_params(read.mod).items():
        np.testing.assert_array_equal(value.numpy(), weights[name])
    assert "clip" in op_names(read.mod)
    assert worst(compiled(read.mod)(IMAGE), runtime(proto, IMAGE)) < 1e-5


def test_the_batch_may_stay_open() -> None:
    proto = network()
    read = import_model(proto, (IMAGE,), dynamic={"x.1": {0: "batch"}})
    assert [str(spec) for spec in read.signature.inputs] == ["x.1: float32[batch, 3, 8, 8]"]
    assert read.signature.symbols == {"batch": (1, None)}
    ready = compiled(read.mod)
    for batch in (1, 5):
        image = np.resize(IMAGE, (batch, 3, 8, 8))
        assert worst(ready(image), runtime(proto, image)) < 1e-5


def test_without_folding() -> None:
    proto = model(
        [helper.make_node("Gemm", ["x", "w"], ["y"])], {"x": (FLOAT, [2, 3])}, ["y"],
        {"w": tensor(3, 4)},
    )  # fmt: skip
    read = import_model(proto, fold=False)
    assert [var.name for var in weight_vars(read.mod)] == ["w"]
    x = tensor(2, 3)
    assert worst(compiled(read.mod)(x), runtime(proto, x)) < 1e-6


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    want = runtime(network(), IMAGE)
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    read = import_model(network(), (IMAGE,))
    assert "shape_to_tensor" not in op_names(read.mod)
    assert worst(compiled(read.mod)(IMAGE), want) < 1e-5


def branches() -> ModelProto:
    """Two weights of one name in the branches of If, chosen by a scalar input."""

    def branch(name: str, weight: str, value: np.ndarray) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node("MatMul", ["x", weight], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, FLOAT, None)],
            [numpy_helper.from_array(value, weight)],
        )

    return model(
        [
            helper.make_node("Equal", ["rate", "sixteen"], ["c"]),
            helper.make_node(
                "If",
                ["c"],
                ["y"],
                then_branch=branch("t", "wide", tensor(3, 4)),
                else_branch=branch("e", "narrow", -tensor(3, 4)),
            ),
        ],
        {"x": (FLOAT, [2, 3]), "rate": (INT64, [])},
        ["y"],
        {"sixteen": np.array(16)},
    )


def test_branches_share_the_weights_of_the_graph() -> None:
    proto, x = branches(), tensor(2, 3)
    read = import_model(proto, (x, np.array(16)))
    assert {var.name for var in weight_vars(read.mod)} == {"wide", "narrow"}
    ready = compiled(read.mod)
    for rate in (np.array(16), np.array(8)):
        assert worst(ready(x, rate), runtime(proto, x, rate)) < 1e-6


def test_a_plain_number_becomes_a_constant() -> None:
    proto, x = branches(), tensor(2, 3)
    read = import_model(proto, (x, 16))
    assert op_names(read.mod) == ["matmul"]
    assert [spec.name for spec in read.signature.inputs] == ["x"]
    assert read.signature.flatten((x, np.array(16)))[0] is x
    assert worst(compiled(read.mod)(x), runtime(proto, x, np.array(16))) < 1e-6


def test_model_functions_are_written_out() -> None:
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    twice = helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    proto = model(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")], {"x": (FLOAT, [2])}, ["y"],
        functions=(twice,), domains=("own",),
    )  # fmt: skip
    assert op_names(import_model(proto).mod) == ["add"]


def test_gather_counts_from_the_end() -> None:
    node = helper.make_node
    proto = model(
        [
            node("Gather", ["w", "i"], ["a"]),
            node("Gather", ["w", "last"], ["b"], axis=1),
            node("Pow", ["a", "two"], ["c"]),
        ],
        {"i": (INT64, [3])},
        ["a", "b", "c"],
        {"w": tensor(4, 5), "last": np.array(-1), "two": np.float32(2)},
    )
    read = import_model(proto)
    i = np.array([-1, 0, -4])
    assert worst(compiled(read.mod)(i), runtime(proto, i)) < 1e-6
    assert "power" not in op_names(read.mod)


def test_slices_of_open_and_fixed_axes() -> None:
    proto = model(
        [helper.make_node("Slice", ["x", "starts", "ends"], ["y"])],
        {"x": (FLOAT, ["batch", 6, 5])},
        ["y"],
        {"starts": np.array([0, -4, 1]), "ends": np.array([2**31 - 1, 10**9, -1])},
    )
    read = import_model(proto, dynamic={"x": {0: "batch"}})
    assert [str(spec) for spec in read.signature.outputs] == ["y: float32[batch, 4, 3]"]
    x = tensor(3, 6, 5)
    assert worst(compiled(read.mod)(x), runtime(proto, x)) == 0


def test_every_unsupported_operator_is_listed() -> None:
    node = helper.make_node
    proto = model(
        [
            node("ImageDecoder", ["s"], ["a"], name="first"),
            node("ImageDecoder", ["s"], ["b"], name="second"),
            node("Relu", ["a"], ["skipped"]),
            node("Attention", ["q", "q", "q"], ["c"], domain="own", name="att"),
            node("Attention", ["q", "q", "q"], ["d"], name="standard"),
            node("StringNormalizer", ["c"], ["e"], name="after"),
            node("FastGelu", ["q"], ["f"], domain="com.microsoft"),
        ],
        {"s": (TensorProto.UINT8, [10]), "q": (FLOAT, [1, 2, 4, 4])},
        ["c", "d", "f"],
        opset=23,
        domains=("com.microsoft", "own"),
    )
    with pytest.raises(UnsupportedOperatorError) as caught:
        import_model(proto, fold=False)
    found = {item.name: item for item in caught.value.operators}
    assert set(found) == {"ai.onnx.ImageDecoder", "own.Attention", "ai.onnx.StringNormalizer"}
    assert found["ai.onnx.ImageDecoder"].nodes == ("first", "second")
    assert "3 ONNX operators cannot be imported" in str(caught.value)
    assert "ai.onnx.ImageDecoder x2 (first, second)" in str(caught.value)
    assert "the domain 'own' has no such converter" in str(caught.value)


def test_operators_of_other_domains_are_refused() -> None:
    proto = model(
        [helper.make_node("Celu", ["x"], ["h"], domain="own")], {"x": (FLOAT, [2])}, ["h"],
        opset=20, domains=("own",),
    )  # fmt: skip
    with pytest.raises(UnsupportedOperatorError, match="the domain 'own'"):
        import_model(proto, fold=False)


@pytest.mark.parametrize(
    ("examples", "dynamic", "message"),
    [
        (None, None, r"'x.1' is declared as \(batch, 3, height, 8\): give example_inputs, or"),
        ((IMAGE, IMAGE), None, "got 2 example inputs, the model has 1: x.1"),
        ((IMAGE[:, :2],), None, r"has shape \(2, 2, 8, 8\), the model takes \(batch, 3"),
        ((IMAGE.astype(np.float64),), None, "is float64, the model takes float32"),
        (([[1]],), None, "must be an array, got list"),
        ({"y": IMAGE}, None, "no input 'y'; its inputs are: x.1"),
        ((IMAGE,), {"x": {0: "n"}}, "dynamic names the input 'x'; the model's inputs are: x.1"),
        ((IMAGE,), {"x.1": {7: "n"}}, "axis 7 of the input 'x.1' of rank 4"),
        ((IMAGE,), {"x.1": {0: "a b"}}, "a name like 'batch'"),
    ],
)
def test_ill_fitting_examples(examples: Any, dynamic: Any, message: str) -> None:
    with pytest.raises(ImportModelError, match=message):
        import_model(network(), examples, dynamic=dynamic)


def test_an_invalid_model() -> None:
    proto = model([helper.make_node("Relu", ["nothing"], ["y"])], {"x": (FLOAT, [2])}, ["y"])
    proto.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 2
    with pytest.raises(ImportModelError, match=r"checker refuses the model: .*nothing"):
        import_model(proto)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save_model(network(), str(path))
    return path


def test_files(stored: Path) -> None:
    read = import_model(stored, (IMAGE,))
    assert read.source_hash == import_model(str(stored), (IMAGE,)).source_hash
    assert read.source == stored


def test_ill_files(stored: Path, tmp_path: Path) -> None:
    whole = stored.read_bytes()
    for name, content, message in (
        ("cut.onnx", whole[: len(whole) // 2], "is no ONNX model, or is truncated"),
        ("text.onnx", b"hello, this is no protobuf", "is no ONNX model"),
        ("empty.onnx", b"", "is empty"),
        ("m.pth", whole, r"has the suffix '.pth'; known are .onnx, .*: load it in Python"),
        ("m.h5", whole, r"has the suffix '.h5'; known are .onnx, .*: load it in Keras"),
        ("m.pt2", whole, r"is no .pt2 archive"),
        ("cut.pt2", b"PK\x03\x04 truncated", r"is no .pt2 archive .*, or truncated"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ImportModelError) as caught:
            import_model(path)
        assert __import__("re").search(message, caught.value.message), caught.value.message
    with pytest.raises(ImportModelError, match="no such model file"):
        import_model(tmp_path / "absent.onnx")
    with pytest.raises(ImportModelError, match="is no file"):
        import_model(tmp_path)


def test_external_data_stays_in_the_folder(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = inner / "net.onnx"
    onnx.save_model(
        network(), str(path), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert len(weight_vars(import_model(path, (IMAGE,)).mod)) == 8

    bare = onnx.load_model(str(path), load_external_data=False)
    with pytest.raises(ImportModelError, match="lies in an external file: pass the path"):
        import_model(bare, (IMAGE,))

    for location, message in (("../w.bin", "outside the model's folder"), ("no.bin", "is missing")):
        for item in bare.graph.initializer:
            for entry in item.external_data:
                if entry.key == "location":
                    entry.value = location
        path.write_bytes(bare.SerializeToString())
        with pytest.raises(ImportModelError, match=message):
            import_model(path, (IMAGE,))
