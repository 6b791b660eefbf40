"""The whole zoo, compiled: parity with each baseline, and what int8 weights cost."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import burnish
from burnish import models
from burnish.compiler.measure.runners import onnx_feed, onnx_session
from burnish.compiler.parity import parity

QUICK = ("fashion-cnn", "silero-vad", "dlrm", "tiny-llama")
PARITY = 1e-4
AMPLIFIES_NOISE = ("whisper-encoder",)
"""On random noise, eager itself is up to 8.5e-5 from float64: float64 is the judge there."""


def parametrized() -> list[Any]:
    return [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.heavy)
        for name in models.names()
    ]


def baseline_of(zoo: Any) -> Callable[..., Any]:
    """The model in its own runtime."""
    if zoo.baseline == "eager":

        def eager(*inputs: Any) -> Any:
            with torch.no_grad():
                return zoo.model(*inputs)

        return eager
    session = onnx_session(zoo.model.SerializeToString(), 2)
    names = [item.name for item in session.get_inputs()]

    def run(*inputs: Any) -> Any:
        return tuple(session.run(None, onnx_feed(names, inputs)))

    return run


def random_like(example: Any, rng: np.random.Generator) -> Any:
    """Random values of the example's shape and dtype: as spread (floats), as ranged (integers).

    Integers of a batch are shuffled within their column, since columns may be of different ranges.
    """
    array = np.asarray(example)
    if array.dtype.kind == "f":
        new = rng.normal(float(array.mean()), float(array.std()) or 1.0, array.shape)
    elif array.ndim > 1 and array.shape[0] > 1:
        new = rng.permuted(array, axis=0)
    else:
        new = rng.integers(int(array.min()), int(array.max()) + 1, array.shape)
    new = new.astype(array.dtype)
    return torch.from_numpy(new) if isinstance(example, torch.Tensor) else new


@pytest.mark.parametrize("name", parametrized())
def test_parity_with_the_baseline(name: str) -> None:
    zoo = models.load(name)
    compiled = burnish.compile(zoo.model, zoo.example_inputs)
    baseline = baseline_of(zoo)
    rng = np.random.default_rng(0)
    random = [tuple(random_like(x, rng) for x in zoo.example_inputs) for _ in range(3)]
    shapes = [np.shape(x) for x in zoo.example_inputs]
    real = [i for i in zoo.inputs(4) if [np.shape(x) for x in i] == shapes]
    for inputs in [zoo.example_inputs, *real[:1], *random]:
        expected, got = baseline(*inputs), compiled(*inputs)
        found = parity(_tupled(got), _tupled(expected))
        noise = any(inputs is drawn for drawn in random)
        if found.rel > PARITY and noise and name in AMPLIFIES_NOISE:
            found = parity(_tupled(got), _tupled(in_float64(zoo.model, inputs)))
        assert found.rel <= PARITY, f"{name}: {found.rel:.2e}"


def in_float64(model: torch.nn.Module, inputs: Any) -> Any:
    """The judge where eager's own rounding takes up the tolerance."""
    with torch.no_grad():
        exact = copy.deepcopy(model).double()
        wide = [x.double() if x.is_floating_point() else x for x in inputs]
        return tuple(y.float() for y in _tupled(exact(*wide)))


def _tupled(outputs: Any) -> Any:
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


@pytest.mark.heavy
def test_int8_weights_keep_minilm_close() -> None:
    zoo = models.load("minilm")
    plain = burnish.compile(zoo.model, zoo.example_inputs)
    small = burnish.compile(zoo.model, zoo.example_inputs, quantize="int8", do_no_harm=False)
    assert small.params_bytes < 0.3 * plain.params_bytes
    for inputs in zoo.inputs(5):
        assert parity(small(*inputs), plain(*inputs)).cosine >= 0.999


@pytest.mark.heavy
def test_int8_weights_keep_the_whisper_decoders_likelihood() -> None:
    zoo = models.load("whisper-decoder")
    reference = zoo.evaluate(baseline_of(zoo))
    small = burnish.compile(zoo.model, zoo.example_inputs, quantize="int8", do_no_harm=False)
    assert abs(zoo.evaluate(small) - reference) <= 0.005 * abs(reference)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_an_open_batch(batch: int, fashion_open: tuple[Any, Any]) -> None:
    zoo, compiled = fashion_open
    x = torch.randn(
        batch, *zoo.example_inputs[0].shape[1:], generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        assert parity(compiled(x), zoo.model(x)).rel <= PARITY


@pytest.fixture(scope="module")
def fashion_open() -> tuple[Any, Any]:
    zoo = models.load("fashion-cnn")
    x = zoo.example_inputs[0].expand(2, *zoo.example_inputs[0].shape[1:]).clone()
    name = next(iter(burnish.import_model(zoo.model, (x,)).signature.inputs)).name
    return zoo, burnish.compile(zoo.model, (x,), dynamic={name: {0: "batch"}})
