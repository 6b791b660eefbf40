"""Weights beside an ONNX model: left in their file where they are too many for one message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from burnish.compiler import driver
from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers.onnx import checks
from burnish.passes.params import get_params

ROWS = 512


def _model(columns: int, count: int = 2) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"]) for i in range(count)]
    nodes.append(helper.make_node("Sum", [f"y{i}" for i in range(count)], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, ROWS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, columns])
    graph = helper.make_graph(nodes, "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _external(name: str, columns: int, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[ROWS, columns])
    tensor.data_location = TensorProto.EXTERNAL
    places = {"location": "weights.bin", "offset": offset, "length": 4 * ROWS * columns}
    for key, value in places.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _stored(folder: Path, columns: int, arrays: list[np.ndarray]) -> Path:
    model, offset = _model(columns, len(arrays)), 0
    with (folder / "weights.bin").open("wb") as file:
        for i, array in enumerate(arrays):
            model.graph.initializer.append(_external(f"w{i}", columns, offset))
            file.write(array.tobytes())
            offset += array.nbytes
    onnx.save(model, str(folder / "model.onnx"))
    return folder / "model.onnx"


def test_weights_left_in_their_file_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng()
    arrays = [rng.standard_normal((ROWS, 600), np.float32) for _ in range(2)]
    path, inline = _stored(tmp_path, 600, arrays), _model(600)
    inline.graph.initializer.extend(
        numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(arrays)
    )
    onnx.save(inline, str(tmp_path / "inline.onnx"))
    want = driver.import_model(tmp_path / "inline.onnx")
    for least in (checks.LEAST, 1):
        monkeypatch.setattr(checks, "LEAST", least)
        got = driver.import_model(path)
        assert got.source == want.source
        found = get_params(got.mod)
        for i, array in enumerate(arrays):
            np.testing.assert_array_equal(found[f"w{i}"].numpy(), array)


def test_a_file_too_short_for_its_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LEAST", 1)
    path = _stored(tmp_path, 600, [np.ones((ROWS, 600), np.float32)])
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ImportModelError, match=r"'w0' takes 1228800 bytes.*1000 in all"):
        driver.import_model(path)


def test_external_data_that_must_be_inside_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _stored(tmp_path, 600, [np.ones((ROWS, 600), np.float32)])
    monkeypatch.setattr(checks, "CHECKER_LIMIT", 1_000_000)
    with pytest.raises(ImportModelError, match="would have to be part of the model"):
        driver.import_model(path)


@pytest.mark.heavy
def test_more_weights_than_a_protobuf_message_holds(tmp_path: Path) -> None:
    columns, count = 300_000, 4
    each = 4 * ROWS * columns
    assert each * count > 2**31
    model = _model(columns, count)
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(each * count)
        for i in range(count):
            model.graph.initializer.append(_external(f"w{i}", columns, i * each))
            file.seek((i + 1) * each - 4)
            file.write(np.float32(i + 1).tobytes())
    onnx.save(model, str(tmp_path / "model.onnx"))
    found = get_params(driver.import_model(tmp_path / "model.onnx").mod)
    for i in range(count):
        assert found[f"w{i}"].numpy()[-1, -1] == i + 1
