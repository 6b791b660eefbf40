"""The frame of the ONNX importer: folding, settings given at import, shapes at run time, files."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import burnish
from burnish.compiler.errors import BurnishError, ImportModelError
from burnish.compiler.importers import import_model
from burnish.compiler.importers.onnx import checks, registry
from burnish.compiler.importers.onnx import model as onnx_model
from burnish.compiler.importers.onnx.folding import folded
from burnish.passes.params import weight_vars
from relax_support import op_names

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model(
    nodes: list[Any],
    inputs: dict[str, tuple],
    weights: dict[str, np.ndarray] | None = None,
    kind: int = FLOAT,
) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, *spec) for n, spec in inputs.items()],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_reshape_and_expand_by_tensors() -> None:
    node = helper.make_node
    proto = model(
        [
            node("Reshape", ["x", "s"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("Expand", ["b", "e"], ["y"]),
        ],
        {"x": (FLOAT, [3, 4]), "s": (INT64, [2]), "e": (INT64, [3])},
    )
    ready = burnish.compile(proto, config=burnish.CompileConfig(fold_onnx=False))
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    for target, spread in (([2, 6], [2, 1, 1]), ([-1, 2], [5, 6, 2]), ([0, 4], [1, 3, 4])):
        (got,) = ready(x, np.array(target), np.array(spread))
        plain = x.reshape([3 if n == 0 else n for n in target])
        np.testing.assert_array_equal(got, np.broadcast_to(np.maximum(plain, 0), got.shape))
        assert got.shape == np.broadcast_shapes(plain.shape, tuple(spread))
    with pytest.raises(Exception, match="match_cast error"):
        ready(x, np.array([3, 5]), np.array([1, 1, 1]))


def test_settings_are_given_as_lists() -> None:
    proto = model(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"])],
        {"x": (FLOAT, [2, 3, 4]), "axes": (INT64, [2])},
    )
    x = np.ones((2, 3, 4), np.float32)
    read = import_model(proto, {"x": x, "axes": [0, 2]}, fold=False)
    assert [str(spec) for spec in read.signature.outputs] == ["y: float32[1, 3, 1]"]
    assert [spec.name for spec in read.signature.inputs] == ["x"]
    # A call may repeat the constant, and may not change it.
    assert read.signature.flatten((x, np.array([0, 2])))[0] is x
    with pytest.raises(BurnishError, match=r"imported as the constant \[0, 2\]"):
        read.signature.flatten((x, np.array([1, 2])))


def test_data_is_never_given_as_a_list() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, [2])})
    with pytest.raises(ImportModelError, match="must be an array, got list"):
        import_model(proto, {"x": [1.0, 2.0]})


def test_computed_shapes_fold_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    node = helper.make_node
    proto = model(
        [
            node("Shape", ["x"], ["s"]),
            node("Equal", ["s", "minus"], ["open"]),
            node("Where", ["open", "one", "s"], ["t"]),
            node("Slice", ["t", "start", "end"], ["rows"]),
            node("Concat", ["rows", "minus"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["y"]),
        ],
        {"x": (FLOAT, ["batch", 3, 4])},
        {
            "minus": np.array([-1]),
            "one": np.array([1]),
            "start": np.array([0]),
            "end": np.array([1]),
        },
    )
    read = import_model(proto, dynamic={"x": {0: "batch"}}, fold=False)
    assert op_names(read.mod) == ["reshape"]
    assert [str(spec) for spec in read.signature.outputs] == ["y: float32[batch, 12]"]


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "want"),
    [
        ("Div", [np.array([-7, 7]), np.array([2, -2])], {}, [-3, -3]),
        ("Slice", [np.arange(5), np.array([3]), np.array([-9]), np.array([0]), np.array([-1])], {},
         [3, 2, 1, 0]),
        ("Cast", [np.array([1.9, -1.9])], {"to": INT64}, [1, -1]),
        ("Range", [np.array(5), np.array(0), np.array(-2)], {}, [5, 3, 1]),
        ("Mod", [np.array([-5]), np.array([3])], {}, [1]),
        ("Squeeze", [np.ones((1, 2, 1)), np.array([0])], {}, [[1], [1]]),
    ],
)  # fmt: skip
def test_rules_of_constants(op: str, inputs: list, attrs: dict, want: list) -> None:
    found = folded(op, inputs, attrs)
    assert found is not None
    np.testing.assert_array_equal(found[0], want)


def test_what_is_large_is_left_to_the_model() -> None:
    assert folded("ConstantOfShape", [np.array([1 << 21])], {}) is None
    assert folded("Range", [np.array(0), np.array(1 << 40), np.array(1)], {}) is None


def test_converters_are_found_by_version() -> None:
    assert registry.converter_of("", "Reshape", 4) is None
    assert registry.converter_of("ai.onnx", "Reshape", 25) is not None
    assert registry.converter_of("own", "Reshape", 25) is None


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = inner / "net.onnx"
    weight = np.ones((4, 4), np.float32)
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, [2, 4])}, {"w": weight}
    )
    onnx.save_model(
        proto, str(path), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    (inner / "w.bin").rename(tmp_path / "w.bin")
    (inner / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ImportModelError, match="outside the model's folder"):
        import_model(path)


def test_a_model_above_the_limit_of_protobuf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits lowered: nothing may then be checked, inferred or folded by way of one message."""
    monkeypatch.setattr(checks, "CHECKER_LIMIT", 1000)
    monkeypatch.setattr(checks, "LEAST", 1)
    monkeypatch.setattr(onnx_model, "INFERENCE_LIMIT", 1000)
    weight = np.random.default_rng(0).standard_normal((640, 512)).astype(np.float32)
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (FLOAT, [2, 640])}, {"w": weight}
    )
    path = tmp_path / "net.onnx"
    onnx.save_model(
        proto, str(path), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    read = import_model(path)
    assert [var.name for var in weight_vars(read.mod)] == ["w"]
    ready = burnish.compile(path, cache=False)
    x = np.ones((2, 640), np.float32)
    np.testing.assert_allclose(ready(x)[0], x @ weight, rtol=1e-4, atol=1e-3)
