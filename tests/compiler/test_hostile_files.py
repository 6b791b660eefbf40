"""Files made to do harm: nested without end, larger than they are, pointing out of their folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from fuzz_support import outcome
from onnx import TensorProto, helper, numpy_helper

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import import_model
from support import require
from tensorflow_support import FIXTURES

FLOAT = TensorProto.FLOAT


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_IMPORT_SECONDS", "30")
    monkeypatch.setenv("BURNISH_IMPORT_GIB", "1")


def refused(path: Path, content: bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImportModelError) as caught:
        import_model(path)
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.json", b"[" * 200_000),
        ("m.json", b'{"root": 0, "nodes": ' + b"[" * 100_000),
        ("m.relay", b'#[version = "0.0.5"]\ndef @main() { ' + b"(" * 20_000),
        ("m.relay", b'#[version = "0.0.5"]\ndef @main(%x: ' + b"(" * 20_000),
        ("m.onnx", b"\x3a\xff\xff\xff\xff\x07"),  # a graph of 2 GiB that is not there
        ("m.onnx", b"\x08\x09" + b"\x3a\x80\x80\x01" * 5_000),
    ],
)
def test_nested_or_larger_than_the_file(name: str, content: bytes, tmp_path: Path) -> None:
    assert refused(tmp_path / name, content)


def nested(depth: int) -> onnx.ModelProto:
    """``If`` in ``If``, as deep as asked."""
    graph = _graph([helper.make_node("Relu", ["x"], ["y0"])], 0)
    for level in range(1, depth):
        node = helper.make_node(
            "If", ["flag"], [f"y{level}"], then_branch=graph, else_branch=_leaf(level)
        )
        graph = _graph([node], level)
    graph.input.extend(
        [
            helper.make_tensor_value_info("x", FLOAT, [2]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _graph(nodes: list, level: int) -> onnx.GraphProto:
    out = helper.make_tensor_value_info(f"y{level}", FLOAT, [2])
    return helper.make_graph(nodes, f"g{level}", [], [out])


def _leaf(level: int) -> onnx.GraphProto:
    node = helper.make_node("Neg", ["x"], [f"leaf{level}"])
    out = helper.make_tensor_value_info(f"leaf{level}", FLOAT, [2])
    return helper.make_graph([node], f"leaf{level}", [], [out])


def test_branches_in_branches(tmp_path: Path) -> None:
    """Protobuf itself makes and reads no more than 100 messages in one another, 33 branches."""
    path = tmp_path / "m.onnx"
    onnx.save(nested(4), path)
    import_model(path)
    onnx.save(nested(28), path)
    assert outcome(path) in ("read", "refused")


def test_a_vector_longer_than_the_file(tmp_path: Path) -> None:
    """At every multiple of 4 of the head, where tables and lengths are."""
    require(find_spec("tflite"), "the tflite package is missing: pip install 'burnish[tflite]'")
    whole = (FIXTURES / "cnn.tflite").read_bytes()
    path = tmp_path / "m.tflite"
    found = []
    for at in range(0, 64, 4):
        path.write_bytes(whole[:at] + b"\xff\xff\xff\x7f" + whole[at + 4 :])
        found.append(outcome(path))
    assert set(found) <= {"read", "refused"}
    assert found[:2] == ["refused", "refused"]


def test_data_of_another_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(np.zeros(4, np.float32).tobytes())
    (folder / "link").symlink_to(secret)
    (folder / "own").write_bytes(secret.read_bytes())
    path = folder / "m.onnx"
    for location, message in (
        ("own", ""),
        ("link", "outside the model's folder"),
        ("../secret", "outside the model's folder"),
        (str(secret), "outside the model's folder"),
        ("own/../../secret", "outside the model's folder"),
        ("", "outside the model's folder"),
        (".", "is missing"),
    ):
        tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("length", "16")):
            tensor.external_data.add(key=key, value=value)
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", FLOAT, [4])],
            [helper.make_tensor_value_info("y", FLOAT, [4])],
            [tensor],
        )
        opsets = [helper.make_opsetid("", 18)]
        path.write_bytes(
            helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
        )
        if message:
            assert message in refused(path)
        else:
            import_model(path)
