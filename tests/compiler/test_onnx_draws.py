"""ONNX operators that draw, and the steps of optimizers."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from import_support import compiled
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

import burnish
from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import import_model

FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
TRAINING = "ai.onnx.preview.training"
CONFIG = burnish.CompileConfig(do_no_harm=False, fold_onnx=False)


def model(
    op: str,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, int],
    domain: str = "",
    weights: dict[str, Any] | None = None,
    **attrs: Any,
) -> ModelProto:
    weights = weights or {}
    graph = helper.make_graph(
        [helper.make_node(op, [*inputs, *weights], [*outputs], domain=domain, name=op, **attrs)],
        "g",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in inputs.items()
        ],
        [helper.make_tensor_value_info(n, kind, None) for n, kind in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def ran(proto: ModelProto, *inputs: np.ndarray) -> Any:
    """Compiled as users do, so that calls are recorded and replayed where they may be."""
    return lambda: burnish.compile(proto, inputs or None, config=CONFIG)


def drawn(op: str, times: int = 3, **attrs: Any) -> list[np.ndarray]:
    kind = attrs.get("dtype", FLOAT)
    proto = model(op, {}, {"y": kind}, shape=[40, 50, 10], **attrs)
    run = compiled(import_model(proto, fold=False).mod)
    return [run()[0] for _ in range(times)]


def test_uniform_numbers_fill_their_range() -> None:
    first, second, _ = drawn("RandomUniform", low=-2.0, high=4.0)
    assert (first != second).mean() > 0.99
    assert first.min() >= -2
    assert first.max() < 4
    counts, _ = np.histogram(np.concatenate([first.ravel(), second.ravel()]), 20, (-2, 4))
    expected = first.size * 2 / 20
    assert ((counts - expected) ** 2 / expected).sum() < 60  # chi square, 19 degrees of freedom
    # No relation between neighbours, or between calls.
    flat = first.ravel() - first.mean()
    for other in (np.roll(flat, 1), np.roll(flat, 10), second.ravel() - second.mean()):
        assert abs(np.corrcoef(flat, other)[0, 1]) < 5 / math.sqrt(flat.size)


def test_normal_numbers_have_their_moments() -> None:
    x = drawn("RandomNormal", 1, mean=3.0, scale=2.0, dtype=DOUBLE)[0]
    assert x.dtype == np.float64
    z = (x.ravel() - 3) / 2
    error = 5 / math.sqrt(z.size)
    assert abs(z.mean()) < error
    assert abs((z**2).mean() - 1) < error * math.sqrt(2)
    assert abs((z**3).mean()) < error * math.sqrt(15)
    assert abs((z**4).mean() - 3) < error * math.sqrt(96)
    assert abs((np.abs(z) < 1).mean() - 0.6827) < error / 2


def test_draws_are_new_at_each_call_of_a_compiled_model() -> None:
    x = np.zeros((64, 8), np.float32)
    for op, attrs in (("RandomUniformLike", {}), ("RandomNormalLike", {"mean": 9.0, "seed": 1.0})):
        run = ran(model(op, {"x": x}, {"y": FLOAT}, **attrs), x)()
        calls = [run(x)[0] for _ in range(4)]
        assert all((a != b).any() for a, b in pairwise(calls))


def test_a_seed_repeats_itself_in_another_process(tmp_path: Path) -> None:
    proto = model("RandomNormal", {}, {"y": FLOAT}, shape=[5], seed=2.0)
    onnx.save(proto, tmp_path / "m.onnx")
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from import_support import compiled\n"
        "from burnish.compiler.importers import import_model\n"
        "run = compiled(import_model(sys.argv[1], fold=False).mod)\n"
        "print([run()[0].tolist() for _ in range(2)])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.onnx"), str(Path(__file__).parents[1])]
    done = [subprocess.run(command, capture_output=True, text=True, check=False) for _ in "ab"]
    assert [run.returncode for run in done] == [0, 0], done[0].stderr
    assert done[0].stdout.splitlines()[-1] == done[1].stdout.splitlines()[-1]


def test_bernoulli_is_one_as_often_as_it_is_told() -> None:
    p = np.tile(np.array([0.0, 0.1, 0.5, 0.9, 1.0], np.float32), (4000, 1))
    run = compiled(import_model(model("Bernoulli", {"p": p}, {"y": INT64}, dtype=INT64)).mod)
    (y,) = run(p)
    assert y.dtype == np.int64
    mean = y.mean(0)
    assert mean[0] == 0
    assert mean[4] == 1
    assert np.abs(mean - p[0]).max() < 5 * 0.5 / math.sqrt(4000)


def test_multinomial_draws_classes_by_their_odds() -> None:
    odds = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)) + 3
    proto = model("Multinomial", {"x": odds}, {"y": TensorProto.INT32}, sample_size=4000)
    (y,) = compiled(import_model(proto, fold=False).mod)(odds)
    assert (y.shape, y.dtype) == ((2, 4000), np.int32)
    for row, want in zip(y, np.exp(odds - 3), strict=True):
        assert np.abs(np.bincount(row, minlength=3) / 4000 - want).max() < 0.04


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_dropout_in_training(ratio: float) -> None:
    x = np.random.default_rng(0).standard_normal((100, 50)).astype(np.float32)
    proto = model(
        "Dropout", {"x": x}, {"y": FLOAT, "mask": TensorProto.BOOL},
        weights={"r": np.float32(ratio), "t": np.array(True)},
    )  # fmt: skip
    y, mask = compiled(import_model(proto, fold=False).mod)(x)
    assert abs(mask.mean() - (1 - ratio)) < 5 * 0.5 / math.sqrt(x.size)
    np.testing.assert_array_equal(y[~mask], 0)
    np.testing.assert_allclose(y[mask], x[mask] / (1 - ratio) if mask.any() else [], rtol=1e-6)


def test_refusals_say_what_to_do() -> None:
    x = np.zeros(3, np.float32)
    proto = model("Dropout", {"x": x, "r": np.float32(0.5), "t": np.array(True)}, {"y": FLOAT})
    with pytest.raises(ImportModelError, match=r"Dropout.*training_mode at import"):
        import_model(proto, (x, np.float32(0.5), np.array(True)), fold=False)
    proto = model("Momentum", dict.fromkeys("rtxgv", x), {"y": FLOAT, "w": FLOAT}, TRAINING,
                  alpha=0.9, beta=1.0, norm_coefficient=0.0, mode="other")  # fmt: skip
    with pytest.raises(ImportModelError, match=r"Momentum.*mode=other: ONNX has"):
        import_model(proto, fold=False)


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize(
    ("op", "states", "attrs"),
    [
        ("Adam", 2, {"norm_coefficient": 0.02, "norm_coefficient_post": 0.1}),
        ("Adagrad", 1, {"decay_factor": 0.1, "norm_coefficient": 0.02}),
        ("Momentum", 1, {"alpha": 0.9, "beta": 0.8, "norm_coefficient": 0.1, "mode": "nesterov"}),
        ("Momentum", 1, {"alpha": 0.9, "beta": 0.8, "norm_coefficient": 0.1, "mode": "standard"}),
    ],
)
def test_steps_of_optimizers(op: str, states: int, attrs: dict[str, Any], count: int) -> None:
    """Against ONNX's own evaluator, two tensors of different shapes at once."""
    rng = np.random.default_rng(count)
    shapes = [(3, 4), (5,)]
    names = ["x", "g", "v", "h"][: 2 + states]
    inputs: dict[str, np.ndarray] = {"r": np.float32(0.1), "t": np.array(count)}
    for name in names:
        for i, shape in enumerate(shapes):
            inputs[f"{name}{i}"] = np.abs(rng.standard_normal(shape)).astype(np.float32)
    outputs = {f"{name}{i}_new": FLOAT for name in ["x", "v", "h"][: 1 + states] for i in range(2)}
    proto = model(op, inputs, outputs, TRAINING, **attrs)
    want = ReferenceEvaluator(proto).run(None, inputs)
    got = compiled(import_model(proto, fold=False).mod)(*inputs.values())
    for a, b in zip(got, want, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
