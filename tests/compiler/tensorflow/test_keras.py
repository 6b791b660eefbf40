"""Keras files through Keras on PyTorch, with no TensorFlow; numbers as of TensorFlow's Keras."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from import_support import compiled, worst

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import import_model
from burnish.compiler.importers.files import load_file
from burnish.compiler.importers.keras_file import KerasFile
from burnish.passes.params import get_params
from support import require
from tensorflow_support import FIXTURES, INPUT, expected


@pytest.fixture(autouse=True)
def torch_route(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    require(find_spec("keras"), "Keras is missing: pip install 'burnish[keras]'")
    monkeypatch.setenv("KERAS_BACKEND", "torch")


@pytest.mark.parametrize(
    "name",
    ["lstm", *(pytest.param(n, marks=pytest.mark.heavy) for n in ("cnn", "unet", "text", "gru"))],
)
def test_files_with_an_open_batch(name: str) -> None:
    inputs, outputs = expected(f"{name}.keras")
    read = import_model(FIXTURES / f"{name}.keras", dynamic={INPUT[name]: {0: "batch"}})
    assert read.kind == "torch"
    assert [spec.name for spec in read.signature.inputs] == [INPUT[name]]
    assert read.signature.inputs[0].shape[0] == "batch"
    assert any("kernel" in weight for weight in get_params(read.mod))
    assert "keras" not in sys.modules, "a user's own Keras would get our backend"
    assert worst(compiled(read.mod)(*inputs), outputs) < 1e-5


def test_inputs_are_read_without_keras() -> None:
    opened = load_file(FIXTURES / "text.keras")
    assert isinstance(opened, KerasFile)
    assert [(i.name, i.shape, i.dtype) for i in opened.inputs] == [("ids", ("", 9), "int32")]
    with pytest.raises(ImportModelError, match=r"declared as \(\?, 9\): give example_inputs"):
        import_model(FIXTURES / "text.keras")


def test_a_lambda_layer_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(ImportModelError, match=r"Lambda layer, which is Python code .*safe mode"):
        import_model(FIXTURES / "lambda.keras", (np.zeros((1, 4), np.float32),))


def test_ill_files(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes((FIXTURES / "cnn.keras").read_bytes()[:1000])
    with pytest.raises(ImportModelError, match=r"is no \.keras archive, or is truncated"):
        import_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps([1, 2]))
    with pytest.raises(ImportModelError, match=r"config\.json has no config"):
        import_model(path)


def test_a_saved_model_needs_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from burnish.compiler.importers import keras_file

    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    monkeypatch.setattr(keras_file, "_has_tensorflow", lambda: False)
    with pytest.raises(ImportModelError, match=r"pip install 'burnish\[tensorflow\]'"):
        import_model(tmp_path)


MODEL_OBJECT = """
import os, sys
os.environ["KERAS_BACKEND"] = "torch"
import keras, numpy as np
import burnish
model = keras.saving.load_model(sys.argv[1], compile=False)
image = np.load(sys.argv[2])["in_0"]
compiled = burnish.compile(model, {"image": image}, dynamic={"image": {0: "batch"}}, cache=False)
want = model(image, training=False).detach().numpy()
for batch in (1, 3):
    got = np.asarray(compiled(image[:batch]))
    assert np.abs(got - want[:batch]).max() < 1e-5, np.abs(got - want[:batch]).max()
print("equal")
"""


def test_a_model_object_on_torch() -> None:
    """In a process of its own: Keras keeps the backend that it was imported with."""
    paths = [str(FIXTURES / name) for name in ("cnn.keras", "cnn.keras.npz")]
    done = subprocess.run(
        [sys.executable, "-c", MODEL_OBJECT, *paths], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]
