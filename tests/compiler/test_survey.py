"""What of a model can be imported: counts, FLOPs, and all that cannot, with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from burnish.compiler.errors import ImportModelError, UnsupportedOperatorError
from burnish.compiler.importers import import_model, survey_model
from burnish.compiler.importers.onnx.survey import flops
from burnish.compiler.importers.survey import Survey
from support import require
from tensorflow_support import FIXTURES


def onnx_model(*, mystery: bool) -> onnx.ModelProto:
    """A convolution of 2 * 16 * 64 * 27 FLOPs and, if asked for, two foreign operators."""
    node = helper.make_node
    weights = {"w": np.zeros((16, 3, 3, 3), np.float32)}
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1])]
    if mystery:
        nodes.append(node("Relu6", ["c"], ["r"], name="first", domain="my.domain"))
        nodes.append(node("Relu6", ["r"], ["y"], name="second", domain="my.domain"))
        nodes[-2].metadata_props.add(
            key="pkg.torch.onnx.stack_trace",
            value='File "/usr/lib/torch/nn.py", line 3, in f\n  x\n'
            'File "/home/me/net.py", line 12, in forward\n  y\n',
        )
    else:
        nodes.append(node("Relu", ["c"], ["y"], name="last"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 8, 8])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.domain", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


CONV = 2 * 16 * 64 * 27
LSTM = [(6, 2, 3), (1, 16, 3), (1, 16, 4), None]


def test_all_of_an_onnx_model() -> None:
    found = survey_model(onnx_model(mystery=False))
    assert found.importable
    assert (found.operator_share, found.flop_share) == (1.0, 1.0)
    assert {(r.name, r.count, r.flops) for r in found.rows} == {
        ("Conv", 1, CONV),
        ("Relu", 1, 16 * 64),
    }


def test_part_of_an_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(onnx_model(mystery=True), path)
    found = survey_model(path)
    assert not found.importable
    assert found.operator_share == pytest.approx(1 / 3)
    (item,) = found.unsupported
    assert (item.name, item.domain, item.version) == ("my.domain.Relu6", "my.domain", 3)
    assert (item.count, item.nodes) == (2, ("first", "second"))
    assert item.sources == ("/home/me/net.py:12", "")
    assert "put their definition into the model as a function" in item.remedy
    assert {row.name: row.supported for row in found.rows} == {"Conv": 1, "Relu6": 0}
    assert Survey.from_dict(json.loads(found.to_json())) == found

    with pytest.raises(UnsupportedOperatorError) as caught:
        import_model(path)
    assert caught.value.operators == found.unsupported
    assert json.loads(caught.value.to_json())["operators"][0]["nodes"] == ["first", "second"]


def test_operators_that_onnx_does_not_have_are_named_with_all_others() -> None:
    model = onnx_model(mystery=True)
    model.graph.node[0].op_type = "Convv"
    found = survey_model(model)
    names = {item.name: item for item in found.unsupported}
    assert names.keys() == {"ai.onnx.Convv", "my.domain.Relu6"}
    assert names["ai.onnx.Convv"].nearest == "Conv"
    assert names["ai.onnx.Convv"].reason == "ONNX has no operator of this name"
    model.graph.node[0].op_type, model.opset_import[0].version = "GroupNormalization", 17
    with pytest.raises(UnsupportedOperatorError, match="ONNX has it from version 21 on"):
        import_model(model)


def test_what_is_no_matter_of_operators(tmp_path: Path) -> None:
    model = onnx_model(mystery=False)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    found = survey_model(model)
    assert not found.importable
    assert "give example_inputs" in found.problem
    assert found.operator_share is None
    assert found.flop_share is None
    again = Survey.from_dict(json.loads(found.to_json()))
    assert again == found
    assert not again.tried
    with pytest.raises(ImportModelError, match="no such model file"):
        survey_model(tmp_path / "absent.onnx")


@pytest.mark.parametrize(
    ("node", "shapes", "want"),
    [
        (helper.make_node("Gemm", ["a", "b"], ["y"], transA=1), [(7, 3), (7, 5), (3, 5)], 210),
        (helper.make_node("MatMul", ["a", "b"], ["y"]), [(2, 3, 7), (7, 5), (2, 3, 5)], 420),
        (helper.make_node("LSTM", ["a", "w", "r"], ["y"]), LSTM, 2688),
        (helper.make_node("Transpose", ["a"], ["y"]), [(3, 4), (4, 3)], 0),
        (helper.make_node("Tanh", ["a"], ["y"]), [(3, 4), (3, 4)], 12),
        (helper.make_node("Tanh", ["a"], ["y"]), [(3, 4), None], None),
    ],
)  # fmt: skip
def test_flops_of_nodes(node: onnx.NodeProto, shapes: list, want: int | None) -> None:
    names = [*node.input, *node.output]
    known = {n: s for n, s in zip(names, shapes, strict=True) if s is not None}
    assert flops(node, known) == want


class Half(nn.Module):
    """A linear layer, and an operator without converter."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(self.linear(x) @ self.linear(x).T)


def test_flops_of_an_exported_program() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = self.conv(x).flatten(2)
            return nn.functional.scaled_dot_product_attention(q, q, q)

    found = survey_model(Net().eval(), (torch.randn(1, 3, 8, 8),))
    rows = {row.name.split(".")[1]: row.flops for row in found.rows}
    assert found.importable
    assert found.unknown_flops == 0
    assert rows["convolution"] == CONV
    attention = next(flops for name, flops in rows.items() if "attention" in name)
    assert attention == 4 * 16 * 16 * 64


def test_part_of_an_exported_program(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(Half().eval(), (torch.randn(4, 16),)), path)
    found = survey_model(path)
    assert found.kind == "torch"
    assert not found.importable
    assert any("linalg_eigh" in item.name or "eig" in item.name for item in found.unsupported)
    assert 0.5 < found.operator_share < 1
    linear = next(row for row in found.rows if "linear" in row.name)
    assert linear.flops == 2 * 2 * 4 * 8 * 16
    assert linear.covered_flops == linear.flops


def test_a_tflite_file(tmp_path: Path) -> None:
    from importlib.util import find_spec

    require(find_spec("tflite"), "the tflite package is missing: pip install 'burnish[tflite]'")
    import tflite

    found = survey_model(FIXTURES / "cnn.tflite")
    assert found.importable
    assert {row.name: row.flops for row in found.rows}["CONV_2D"] == 2 * 2 * 16 * 16 * 8 * 27

    data = bytearray((FIXTURES / "cnn.tflite").read_bytes())
    model = tflite.Model.GetRootAs(data, 0)
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        if code.DeprecatedBuiltinCode() == tflite.BuiltinOperator.SOFTMAX:
            for field in (4, 10):  # the code in 8 bits, and in 32
                at = code._tab.Offset(field)
                if at:
                    data[code._tab.Pos + at] = tflite.BuiltinOperator.LSH_PROJECTION
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    found = survey_model(path)
    (item,) = found.unsupported
    assert (item.name, item.domain, item.count) == ("LSH_PROJECTION", "tflite", 1)
    assert "give the .keras file" in item.remedy
    assert found.operator_share == pytest.approx(5 / 6)
    assert 0.9 < found.flop_share < 1
