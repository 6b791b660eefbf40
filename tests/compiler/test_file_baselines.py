"""Keras, TFLite and Relay files beside the runtime they are from, or what stands for it."""

from __future__ import annotations

import importlib.util
import lzma
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import burnish
from burnish.compiler import baseline
from burnish.compiler.errors import MeasureError
from burnish.compiler.measure import file_runners
from support import ROOT, require
from tensorflow_support import FIXTURES, expected

QUICK: dict[str, Any] = {"rounds": 2, "budget_s": 1.0, "threads": 1}
RELAY = ROOT / "tests" / "compiler" / "relay" / "networks"


def test_tflite_beside_litert() -> None:
    require(find_spec("ai_edge_litert"), "LiteRT is missing: pip install 'burnish[bench]'")
    path = FIXTURES / "text.tflite"
    inputs, _ = expected("text.tflite")
    compiled = burnish.compile(path)
    result = burnish.compare(path, compiled, tuple(inputs), **QUICK)
    assert result.baseline == "litert"
    assert result.parity.rel < 1e-5
    runner = file_runners.LiteRunner(str(path))
    runner.prepare(1)
    with pytest.raises(MeasureError, match=r"the TFLite model takes 1 inputs .*, 2 were given"):
        runner.open()((*inputs, *inputs))


@pytest.mark.heavy
def test_quantized_and_recurrent_tflite_beside_litert() -> None:
    require(find_spec("ai_edge_litert"), "LiteRT is missing: pip install 'burnish[bench]'")
    for name, most in (("cnn_int8", 0.02), ("lstm", 1e-4)):
        path = FIXTURES / f"{name}.tflite"
        inputs, _ = expected(path.name)
        result = burnish.compare(path, burnish.compile(path), tuple(inputs), **QUICK)
        assert result.parity.rel < most, name


def test_tflite_without_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MeasureError, match=r"LiteRT.* is not installed: pip install 'burnish\[bench"
    ):
        baseline.find_baseline(FIXTURES / "text.tflite")


@pytest.mark.heavy
def test_keras_beside_its_backend() -> None:
    require(find_spec("keras"), "Keras is missing: pip install 'burnish[keras]'")
    path = FIXTURES / "cnn.keras"
    inputs, _ = expected("cnn.keras")
    compiled = burnish.compile(path, tuple(inputs))
    result = burnish.compare(path, compiled, tuple(inputs), **QUICK)
    assert result.baseline == "keras"
    assert result.parity.rel < 1e-4


@pytest.mark.heavy
def test_relay_beside_its_own_plain_build(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    path.write_bytes(lzma.decompress((RELAY / "gru.json.xz").read_bytes()))
    path.with_suffix(".params").write_bytes((RELAY / "gru.params").read_bytes())
    compiled = burnish.compile(path, quantize="int8", do_no_harm=False)
    rng = np.random.default_rng(0)
    inputs = tuple(
        rng.normal(size=[int(n) for n in item.shape]).astype(item.dtype)
        for item in compiled.signature.inputs
    )
    result = burnish.compare(path, compiled, inputs, **QUICK)
    assert result.baseline == "burnish, as read"
    assert 0 < result.parity.rel < 0.1
    assert "Relay has no runtime any more" in result.timings["baseline"].note


def test_a_folder_needs_a_runner(tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match="the runtime of a folder is not run here"):
        baseline.find_baseline(tmp_path / "saved")
    with pytest.raises(MeasureError, match="does not exist"):
        baseline.find_baseline(tmp_path / "gone.tflite")
    assert file_runners.KerasRunner("a.keras").runtime == "keras"
