"""The whole zoo on OpenCL: from memory, and from an artifact in a process that compiled nothing.

Inputs are the zoo's own, cut short where the network allows it: what takes the time is the
driver's compiler, and the kernels are the same. One compilation a model serves both runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import burnish
from burnish import models
from burnish.compiler.measure.runners import onnx_feed, onnx_session
from burnish.compiler.parity import leaves, parity
from opencl_support import require_device

PARITY = 1e-4
SHORT: dict[str, tuple[tuple[slice, ...], ...]] = {
    "minilm": ((slice(None), slice(16)),) * 2,
    "tiny-llama": ((slice(None), slice(16)),),
    "smollm2": ((slice(None), slice(16)),),
    "whisper-decoder": ((slice(None), slice(4)), (slice(None), slice(64))),
    "efficientnet-lite0": ((..., slice(64, 128), slice(64, 128)),),
    "pp-ocr-rec": ((..., slice(96)),),
    "dlrm": ((slice(16),),) * 2,
}
"""What of each input is kept; whole ones where sizes are fixed."""
ONE_INPUT = ("layout", "whisper-encoder")
"""Their one size takes seconds on OpenCL; the others are run on drawn values too."""

FRESH = """
import json, sys
import numpy as np
import burnish
from burnish.compiler.parity import leaves

for line in sys.stdin:
    artifact, given, answer = json.loads(line)
    with np.load(given) as inputs:
        values = [inputs[name] for name in inputs.files]
    outputs = [value for _, value in leaves(burnish.load(artifact)(*values))]
    np.savez(answer, *outputs)
    print("done", flush=True)
"""


@pytest.fixture(scope="module")
def fresh() -> Iterator[Callable[[Path, tuple[Any, ...]], list[np.ndarray]]]:
    """Outputs of an artifact for inputs, by a process of its own that only loads and runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", FRESH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    ask, told = process.stdin, process.stdout

    def run(artifact: Path, inputs: tuple[Any, ...]) -> list[np.ndarray]:
        given, answer = artifact.with_suffix(".in.npz"), artifact.with_suffix(".out.npz")
        np.savez(given, *map(np.asarray, inputs))
        ask.write(json.dumps([str(artifact), str(given), str(answer)]) + "\n")
        ask.flush()
        assert told.readline() == "done\n", "the fresh process failed: see its message above"
        with np.load(answer) as outputs:
            return [outputs[name] for name in outputs.files]

    yield run
    ask.close()
    process.wait(timeout=60)


def shortened(zoo: Any) -> tuple[Any, ...]:
    cuts = SHORT.get(zoo.name, ())
    kept = zoo.example_inputs[len(cuts) :]
    cut = [x[at] for x, at in zip(zoo.example_inputs, cuts, strict=False)]
    return (*(x.clone() if isinstance(x, torch.Tensor) else x.copy() for x in cut), *kept)


def drawn(example: Any, rng: np.random.Generator) -> Any:
    """Other values of the same shape: floats as spread, integers shuffled within their columns."""
    array = np.asarray(example)
    if array.dtype.kind == "f":
        new = rng.normal(float(array.mean()), float(array.std()) or 1.0, array.shape)
    else:
        new = rng.permuted(array, axis=0 if array.ndim > 1 and len(array) > 1 else -1)
    new = np.asarray(new).astype(array.dtype).reshape(array.shape)
    return torch.from_numpy(new) if isinstance(example, torch.Tensor) else new


def reference(zoo: Any, inputs: tuple[Any, ...]) -> list[np.ndarray]:
    """The model in its own runtime."""
    if zoo.baseline == "eager":
        with torch.no_grad():
            return [value for _, value in leaves(zoo.model(*inputs))]
    session = onnx_session(zoo.model.SerializeToString(), 2)
    names = [item.name for item in session.get_inputs()]
    return session.run(None, onnx_feed(names, inputs))


@pytest.mark.heavy
@pytest.mark.parametrize("name", models.names())
def test_parity_from_memory_and_from_a_file(name, fresh, tmp_path):
    require_device()
    zoo = models.load(name)
    real = shortened(zoo)
    compiled = burnish.compile(zoo.model, real, target="opencl", cache=False)
    assert parity(compiled(*real), reference(zoo, real)).rel <= PARITY
    other = real
    if name not in ONE_INPUT:
        rng = np.random.default_rng(0)
        other = tuple(drawn(x, rng) if np.ndim(x) else x for x in real)
    found = fresh(compiled.save(tmp_path / f"{name}.burnish"), other)
    assert parity(found, reference(zoo, other)).rel <= PARITY


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "code"), [("minilm", "int8"), ("tiny-llama", "int4")])
def test_small_weights_give_what_they_give_on_the_cpu(name, code):
    require_device()
    zoo = models.load(name)
    real = shortened(zoo)
    settings = {"quantize": code, "do_no_harm": False, "cache": False}
    expected = burnish.compile(zoo.model, real, **settings)
    compiled = burnish.compile(zoo.model, real, target="opencl", **settings)
    assert compiled.params_bytes < (0.3 if code == "int8" else 0.25) * sum(
        4 * value.numel() for value in zoo.model.state_dict().values()
    )
    assert parity(compiled(*real), expected(*real)).rel <= PARITY
