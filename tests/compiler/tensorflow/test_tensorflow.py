"""With TensorFlow: Keras and SavedModels through ONNX, TFLite files made afresh."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_support import compiled, worst

from burnish.compiler.errors import ImportModelError
from burnish.compiler.importers import import_model
from burnish.compiler.importers.model_file import ModelFile
from burnish.compiler.measure import file_runners
from burnish.compiler.measure.values import plain
from support import require
from tensorflow_support import FIXTURES, expected

pytestmark = pytest.mark.tensorflow


@pytest.fixture(autouse=True)
def tensorflow_route(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorflow", "tf2onnx", "keras", "tflite"):
        require(find_spec(name), f"{name} is missing: make test-tensorflow installs it")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)


@pytest.mark.parametrize("name", ["cnn", "unet", "text", "lstm", "gru"])
def test_keras_files(name: str) -> None:
    """An LSTM becomes ONNX's ``LSTM``, a GRU of two directions two loops."""
    inputs, outputs = expected(f"{name}.keras")
    read = import_model(FIXTURES / f"{name}.keras", tuple(inputs))
    assert read.kind == "onnx"
    assert worst(compiled(read.mod)(*inputs), outputs) < 1e-5


def test_a_keras_file_with_an_open_batch() -> None:
    inputs, outputs = expected("cnn.keras")
    read = import_model(FIXTURES / "cnn.keras", dynamic={"image": {0: "batch"}})
    assert read.signature.inputs[0].shape == ("batch", 16, 16, 3)
    call = compiled(read.mod)
    assert worst(call(*inputs), outputs) < 1e-5
    assert worst(call(inputs[0][:1]), [outputs[0][:1]]) < 1e-5


def test_the_torch_route_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    inputs, outputs = expected("lstm.keras")
    read = import_model(FIXTURES / "lstm.keras", tuple(inputs))
    assert read.kind == "torch"
    assert worst(compiled(read.mod)(*inputs), outputs) < 1e-5


def test_a_lambda_layer_is_not_run() -> None:
    with pytest.raises(ImportModelError, match=r"Lambda layer, which is Python code .*safe mode"):
        import_model(FIXTURES / "lambda.keras", (np.zeros((1, 4), np.float32),))


MAKE = """
import sys
import numpy as np
import tensorflow as tf

class Net(tf.Module):
    def __init__(self):
        self.w = tf.Variable(tf.random.stateless_normal((6, 4), (1, 2)))

    @tf.function(input_signature=[
        tf.TensorSpec((None, 6), tf.float32, "x"), tf.TensorSpec((), tf.float32, "scale")])
    def __call__(self, x, scale):
        return {"y": tf.nn.relu(x @ self.w) * scale, "rows": tf.reduce_sum(x, 1)}

net = Net()
tf.saved_model.save(net, sys.argv[1], signatures=net.__call__)
x = np.random.default_rng(5).standard_normal((3, 6)).astype("float32")
found = net(x, tf.constant(2.0))
np.savez(sys.argv[2], x=x, y=found["y"].numpy(), rows=found["rows"].numpy())
tf.saved_model.save(tf.Module(), sys.argv[3])
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Path]:
    """A SavedModel, its inputs and outputs, and one without signatures; made elsewhere, so that
    TensorFlow and TVM do not meet in one process."""
    root = tmp_path_factory.mktemp("saved")
    model, data, bare = root / "net", root / "net.npz", root / "bare"
    script = [sys.executable, "-c", MAKE, str(model), str(data), str(bare)]
    subprocess.run(script, check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    with np.load(data) as found:
        return model, dict(found), bare


def test_a_saved_model(saved: tuple[Path, Any, Path]) -> None:
    model, data, _ = saved
    scale = np.float32(2.0).reshape(())
    given = {"x": data["x"], "scale": scale}
    read = import_model(model, given)
    assert isinstance(read.source, Path)
    values = [given[spec.name.split(":")[0]] for spec in read.signature.inputs]
    found = dict(
        zip(
            [spec.name for spec in read.signature.outputs], compiled(read.mod)(*values), strict=True
        )
    )
    assert {tuple(v.shape) for v in found.values()} == {(3, 4), (3,)}
    for value in found.values():
        want = data["y"] if value.ndim == 2 else data["rows"]
        assert worst([value], [want]) < 1e-5


def test_a_saved_model_without_signature(saved: tuple[Path, Any, Path]) -> None:
    with pytest.raises(ImportModelError, match="no signature serving_default, only none"):
        import_model(saved[2])


def test_the_folder_goes_with_its_file() -> None:
    from burnish.compiler.importers.files import load_file

    opened = load_file(FIXTURES / "cnn.keras")
    assert isinstance(opened, ModelFile)
    folder = opened.path.parent
    assert folder.is_dir()
    del opened
    assert not folder.exists()


MODEL_OBJECT = """
import os, sys
os.environ["KERAS_BACKEND"] = sys.argv[3]
import keras, numpy as np
import burnish
model = keras.saving.load_model(sys.argv[1], compile=False)
image = np.load(sys.argv[2])["in_0"]
compiled = burnish.compile(model, (image,), cache=False)
want = np.load(sys.argv[2])["out_0"]
got = compiled(image)
got = np.asarray(got[0] if isinstance(got, (list, tuple)) else got)
assert np.abs(got - want).max() < 1e-5
print("equal")
"""


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_model_object(backend: str) -> None:
    paths = [str(FIXTURES / name) for name in ("cnn.keras", "cnn.keras.npz")]
    done = subprocess.run(
        [sys.executable, "-c", MODEL_OBJECT, *paths, backend],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]


def test_tflite_beside_tensorflow_on_fresh_inputs(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np, tensorflow as tf\n"
        "run = tf.lite.Interpreter(sys.argv[1]); run.allocate_tensors()\n"
        "run.set_tensor(run.get_input_details()[0]['index'], np.load(sys.argv[2])); run.invoke()\n"
        "np.save(sys.argv[3], run.get_tensor(run.get_output_details()[0]['index']))\n"
    )
    for name, shape in (("cnn", (2, 16, 16, 3)), ("lstm", (2, 7, 6)), ("gru", (2, 7, 6))):
        x = np.random.default_rng(len(name)).standard_normal(shape).astype("float32")
        given, out = tmp_path / f"{name}-in.npy", tmp_path / f"{name}-out.npy"
        np.save(given, x)
        file = FIXTURES / f"{name}.tflite"
        subprocess.run([sys.executable, "-c", script, str(file), str(given), str(out)], check=True)
        assert worst(compiled(import_model(file).mod)(x), [np.load(out)]) < 1e-5


@pytest.mark.parametrize("name", ["cnn.keras", "lstm.keras", "cnn.tflite"])
def test_baselines_run_on_tensorflow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As compare runs them, in a process of their own."""
    inputs, outputs = expected(name)
    monkeypatch.setattr(file_runners, "LITE", file_runners.LITE[-1:])
    kind = file_runners.KerasRunner if name.endswith(".keras") else file_runners.LiteRunner
    with multiprocessing.get_context("fork").Pool(1) as pool:
        got = pool.apply(_run, (kind, str(FIXTURES / name), inputs))
    assert worst(got, outputs) < 1e-5


def _run(kind: Any, path: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
    runner = kind(path)
    runner.prepare(1)
    got = plain(runner.open()(inputs)())
    return list(got) if isinstance(got, list | tuple) else [got]
