"""Comparisons with stand-ins for compiled models; times are only checked for sanity."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from burnish.compiler import compare as module
from burnish.compiler.compare import compare, input_tuples
from burnish.compiler.errors import ConfigError, MeasureError
from burnish.compiler.measure import ArtifactRunner
from burnish.compiler.measure.runners import OnnxRuntimeRunner
from burnish.compiler.measure.timing import summarize
from burnish.compiler.parity import ParityError
from burnish.compiler.waterfall import Reading, Report, Row

QUICK = {"rounds": 3, "budget_s": 0.5}
KEYS = {
    "schema", "baseline", "latency_ms", "speedup", "error", "bytes", "peak_memory", "accuracy",
    "compile_s", "tune_s", "break_even", "passes", "machine",
}  # fmt: skip
ROW = Row("FoldBatchNorm", "fold", 0.5, Reading({"conv2d": 2}, 100), Reading({"conv2d": 1}, 90))


@dataclass
class Scaled:
    """Stands for a compiled model: ``scale * x @ weight``, saved as an ``.npz``."""

    weight: np.ndarray
    scale: float = 1.0
    path: object = None
    report: Report = field(default_factory=lambda: Report((ROW,), {"import": 1.0, "tune": 3.0}))
    target: object = field(default_factory=lambda: SimpleNamespace(threads=1))

    @property
    def params_bytes(self):
        return self.weight.nbytes

    def __call__(self, x):
        return (self.scale * np.asarray(x) @ self.weight,)

    def save(self, path):
        self.path = path
        with open(path, "wb") as file:
            np.savez(file, weight=self.weight, scale=self.scale)


@pytest.fixture
def stand_in(monkeypatch):
    def load(path):
        import numpy

        saved = numpy.load(path)
        return lambda x: (saved["scale"] * numpy.asarray(x) @ saved["weight"],)

    monkeypatch.setattr(module, "ArtifactRunner", partial(ArtifactRunner, loader=load))


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return torch.nn.Linear(16, 4, bias=False)


def weight_of(linear):
    return linear.weight.detach().numpy().T.copy()


def test_eager(stand_in, linear, tmp_path):
    many = [(torch.randn(3, 16),), (torch.randn(5, 16),)]
    calls = []

    def evaluate(function):
        calls.append(function(*many[0]))
        return len(calls) / 2

    linear.train()
    compiled = Scaled(weight_of(linear), 1.01)
    result = compare(linear, compiled, many, evaluate, **QUICK)
    assert linear.training
    assert compiled.path is None
    data = result.to_dict()
    assert set(data) == KEYS
    assert data["schema"] == "burnish.comparison/1"
    assert data["baseline"] == "eager"
    for side in ("baseline", "compiled"):
        timing = data["latency_ms"][side]
        assert 0 < timing["p50"] <= timing["p95"] <= timing["p99"]
    assert data["speedup"] > 0
    assert data["error"]["rel"] == pytest.approx(0.01, rel=1e-3)
    assert data["error"]["cosine"] == pytest.approx(1)
    assert data["error"]["inputs"] == 2
    assert data["bytes"]["params"] == data["bytes"]["params_baseline"] == 256
    assert data["bytes"]["artifact"] > 256
    assert data["accuracy"] == {"baseline": 0.5, "compiled": 1.0}
    assert torch.is_tensor(calls[0])
    assert (data["compile_s"], data["tune_s"]) == (1, 3)
    assert data["passes"][0]["name"] == "FoldBatchNorm"
    assert data["machine"]["threads"] == 1

    result.save(tmp_path / "report.json")
    assert (
        json.loads((tmp_path / "report.json").read_text())["error"]["rel"] == data["error"]["rel"]
    )
    result.save(tmp_path / "report.html")
    assert "eager PyTorch" in (tmp_path / "report.html").read_text()
    with pytest.raises(ConfigError, match=r"cannot write a report as 'report.pdf': use .json or"):
        result.save(tmp_path / "report.pdf")


def onnx_matmul(weight):
    shapes = {"x": ["n", 16], "y": ["n", 4]}
    x, y = (helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in shapes.items())
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("form", ["proto", "path"])
def test_onnx_is_set_beside_onnxruntime(stand_in, linear, tmp_path, form):
    weight = weight_of(linear)
    model = onnx_matmul(weight)
    if form == "path":
        onnx.save(model, tmp_path / "m.onnx")
        model = tmp_path / "m.onnx"
    x = (np.ones((2, 16), np.float32),)
    result = compare(model, Scaled(weight), x, lambda f: f(*x)[0].sum(), **QUICK)
    assert result.baseline == "onnxruntime"
    assert result.parity.rel < 1e-6
    assert result.baseline_params_bytes == 256
    assert result.accuracy[0] == pytest.approx(result.accuracy[1], rel=1e-5)


def test_a_given_baseline_takes_the_place_of_the_model(stand_in, linear):
    weight = weight_of(linear)
    x = (np.ones((2, 16), np.float32),)
    result = compare(onnx_matmul(weight), Scaled(weight), x, baseline=linear, **QUICK)
    assert result.baseline == "eager"


def test_a_runner_is_evaluated_through_its_process(stand_in, linear):
    weight = weight_of(linear)
    x = (np.ones((2, 16), np.float32),)
    runner = OnnxRuntimeRunner(onnx_matmul(weight))
    result = compare(linear, Scaled(weight), x, lambda f: f(*x)[0].size, baseline=runner, **QUICK)
    assert result.accuracy == (8, 8)
    assert result.baseline_params_bytes is None


def test_a_saved_artifact_is_used_where_it_is(stand_in, linear, tmp_path):
    compiled = Scaled(weight_of(linear))
    compiled.save(tmp_path / "m.burnish")
    result = compare(linear, compiled, torch.ones(2, 16), **QUICK)
    assert result.artifact_bytes == compiled.path.stat().st_size


def test_outputs_of_another_shape(stand_in, linear):
    with pytest.raises(ParityError, match=r"output \[0\] has shape \[2, 2\]|has shape \[2, 2\]"):
        compare(linear, Scaled(weight_of(linear)[:, :2]), (torch.ones(2, 16),), **QUICK)


def test_bad_baselines(tmp_path):
    compiled = Scaled(np.ones((16, 4), np.float32))
    x = (np.ones((2, 16), np.float32),)
    with pytest.raises(MeasureError, match="a dict is no baseline: expected a torch module"):
        compare({}, compiled, x)
    with pytest.raises(MeasureError, match=r"the baseline .*gone.onnx does not exist"):
        compare(tmp_path / "gone.onnx", compiled, x)
    with pytest.raises(
        MeasureError, match=r"is no baseline: expected a file of .onnx, .pt2, .keras"
    ):
        compare(tmp_path / "m.bin", compiled, x)


def test_no_inputs(linear):
    with pytest.raises(MeasureError, match="no inputs were given"):
        compare(linear, Scaled(weight_of(linear)), [])


def test_input_forms():
    x = np.ones(2)
    assert len(input_tuples([(x,), (x,)])) == 2
    assert [len(one) for one in input_tuples((x, x))] == [2]
    assert [len(one) for one in input_tuples([x, x, x])] == [3]
    assert [len(one) for one in input_tuples(x)] == [1]


def found(base_ms, ours_ms, **changes):
    timings = {
        "baseline": summarize([[base_ms]] * 5),
        "compiled": summarize([[ours_ms]] * 5),
    }
    fields = {
        "baseline": "eager", "timings": timings, "parity": SimpleNamespace(to_dict=dict),
        "inputs": 1, "params_bytes": 1, "baseline_params_bytes": 1, "artifact_bytes": 1,
        "accuracy": None, "compile_s": 1.0, "tune_s": 0.5,
    }  # fmt: skip
    return module.Comparison(**{**fields, **changes})


def test_break_even_counts_compiling_and_tuning():
    result = found(10.0, 5.0)
    assert (result.speedup, result.verdict, result.break_even) == (2, "faster", 300)


@pytest.mark.parametrize(("ours", "verdict"), [(10.1, "within noise"), (12.0, "slower")])
def test_what_is_not_faster_never_pays(ours, verdict):
    result = found(10.0, ours)
    assert (result.verdict, result.break_even) == (verdict, None)
    assert not math.isnan(result.speedup)


def test_a_busy_machine_earns_no_speed_up():
    timings = {
        "baseline": summarize([[24.0], [24.0], [0.8]], noisy=True),
        "compiled": summarize([[0.3], [0.3], [0.2]]),
    }
    result = found(1.0, 1.0, timings=timings)
    assert result.speedup == pytest.approx(4)
