"""TFLite files: float, int8, recurrent, open batch; numbers as of TFLite's reference kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from import_support import compiled, worst

import burnish
from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import import_model
from burnish.passes.params import get_params
from support import require
from tensorflow_support import FIXTURES, expected


@pytest.fixture(autouse=True)
def schema() -> None:
    from importlib.util import find_spec

    require(find_spec("tflite"), "the tflite package is missing: pip install 'burnish[tflite]'")


FLOAT = ["cnn", "unet", "text", "lstm", "gru", "sequence", "sequence_coupled"]


@pytest.mark.parametrize("name", FLOAT)
def test_float_models(name: str) -> None:
    inputs, outputs = expected(f"{name}.tflite")
    read = import_model(FIXTURES / f"{name}.tflite")
    assert read.kind == "tflite"
    assert worst(compiled(read.mod)(*inputs), outputs) < 1e-5


@pytest.mark.parametrize(("name", "steps"), [("cnn_int8", 1), ("unet_int8", 3)])
def test_int8_models_are_within_few_steps(name: str, steps: int) -> None:
    """Rounded apart by one where TFLite's integers fall between; the unet's last activation makes
    2.6 steps of its own out of one before it."""
    inputs, outputs = expected(f"{name}.tflite")
    got = compiled(import_model(FIXTURES / f"{name}.tflite").mod)(*inputs)
    assert [a.dtype for a in got] == [b.dtype for b in outputs]
    for a, b in zip(got, outputs, strict=True):
        off = np.abs(a.astype(int) - b.astype(int))
        assert off.max() <= steps
        assert off.mean() < 0.5


def test_weights_of_eight_bits_beside_float_activations() -> None:
    """TFLite rounds the activations too; here they stay float, so the error is theirs."""
    inputs, outputs = expected("wide.tflite")
    read = import_model(FIXTURES / "wide.tflite")
    assert "int8" in {str(w.dtype) for w in get_params(read.mod).values()}
    assert worst(compiled(read.mod)(*inputs), outputs) < 0.02


def test_weights_keep_their_tensors_names() -> None:
    names = list(get_params(import_model(FIXTURES / "cnn.tflite").mod))
    assert len(names) == len(set(names)) == 6
    assert any("head" in name for name in names)


def test_an_open_batch_stays_open() -> None:
    path = FIXTURES / "cnn_open_batch.tflite"
    read = import_model(path, dynamic={"image": {0: "batch"}})
    assert read.signature.inputs[0].shape == ("batch", 16, 16, 3)
    assert read.signature.outputs[0].shape == ("batch", 5)
    call = compiled(read.mod)
    for batch in (1, 2, 5):
        image = np.random.default_rng(batch).standard_normal((batch, 16, 16, 3)).astype("float32")
        one = [call(image[i : i + 1])[0] for i in range(batch)]
        assert worst(call(image), [np.concatenate(one)]) < 1e-6
    inputs, outputs = expected("cnn.tflite")
    assert worst(call(*inputs), outputs) < 1e-5
    assert import_model(path, (inputs[0],)).signature.outputs[0].shape == (2, 5)


def test_what_is_wrong_with_inputs() -> None:
    closed, opened = FIXTURES / "cnn.tflite", FIXTURES / "cnn_open_batch.tflite"
    image = np.zeros((2, 16, 16, 3), np.float32)
    for path, examples, dynamic, message in (
        (opened, None, None, r"declared as \(\?, 16, 16, 3\): give example_inputs"),
        (closed, (image[:1],), None, r"has shape \(1, 16, 16, 3\), the model takes \(2,"),
        (closed, (image.astype("float64"),), None, "is float64, the model takes float32"),
        (closed, None, {"image": {0: "batch"}}, "axis 0 of the input 'image' is fixed at 2"),
        (closed, None, {"picture": {0: "batch"}}, "dynamic names the input 'picture'"),
        (closed, {"picture": image}, None, "no input 'picture'; its inputs are: image"),
        (closed, (image, image), None, "got 2 example inputs, the model has 1"),
    ):
        with pytest.raises(ImportModelError, match=message):
            import_model(path, examples, dynamic=dynamic)


def test_ill_files(tmp_path: Path) -> None:
    whole = (FIXTURES / "cnn.tflite").read_bytes()
    for content, message in (
        (b"hello, this is no flat buffer", "is no TFLite model: it has no TFL3 mark"),
        (whole[:200], "is no TFLite model, or is truncated|crashes the library|cannot be read"),
        (whole[: len(whole) // 2], "has a buffer of|is truncated|cannot be read"),
    ):
        path = tmp_path / "m.tflite"
        path.write_bytes(content)
        with pytest.raises(ImportModelError, match=message):
            import_model(path)


def test_compiled() -> None:
    inputs, outputs = expected("cnn.tflite")
    model = burnish.compile(str(FIXTURES / "cnn.tflite"), tuple(inputs))
    assert worst([np.asarray(y) for y in model(*inputs)], outputs) < 1e-5
