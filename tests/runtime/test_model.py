"""The minimal runtime: the same answers as the compiler's loader, and none of its weight."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
import torch
from artifact_support import changed_manifest, members
from small_nets import Block, Mlp, made

import burnish
from burnish import runtime
from burnish.runtime import cuda, native
from burnish.runtime.errors import ArtifactError, InvalidInputError
from burnish.runtime.manifest import NAME

X = np.random.default_rng(1).standard_normal((2, 20)).astype(np.float32)


class Mixed(torch.nn.Module):
    """Outputs of several dtypes, an input given back, and what needs TVM's own sorting."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, object]:
        first = torch.softmax(x, -1)
        best = torch.topk(x, 3).values
        return {"all": [first, (mask, first > 0.05)], "ids": x.argmax(-1), "best": best}


NOISY = """
<ir_version: 9, opset_import: ["" : 18]>
agraph (float[2, 20] x) => (float[2, 20] y) { noise = RandomUniformLike (x) y = Add (x, noise) }
"""


def _mlp():
    return burnish.compile(made(Mlp), (torch.from_numpy(X),), quantize="int4", do_no_harm=False)


def _block():
    tokens = torch.ones(2, 7, dtype=torch.int64)
    sizes = {0: "batch", 1: "seq"}
    return burnish.compile(made(Block), (tokens, tokens), dynamic={"tokens": sizes, "mask": sizes})


def _mixed():
    mask = torch.ones(2, 20, dtype=torch.bool)
    return burnish.compile(Mixed().eval(), (torch.from_numpy(X), mask))


def _noisy():
    return burnish.compile(onnx.parser.parse_model(NOISY), (X,))


def _bf16():
    x = torch.from_numpy(X).bfloat16()
    return burnish.compile(torch.nn.Identity().eval(), (x,), do_no_harm=False)


class Saved(dict[str, Path]):
    """Artifacts by name, each compiled when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        make = {"mlp": _mlp, "block": _block, "mixed": _mixed, "noisy": _noisy, "bf16": _bf16}
        self[name] = make[name]().save(self.folder / f"{name}.burnish")
        return self[name]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Saved:
    return Saved(tmp_path_factory.mktemp("saved"))


def leaves(value):
    if isinstance(value, dict | list | tuple):
        items = value.values() if isinstance(value, dict) else value
        return [leaf for item in items for leaf in leaves(item)]
    return [value]


def same(ours, theirs):
    assert type(ours) is type(theirs)
    ours, theirs = leaves(ours), leaves(theirs)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)


def test_the_same_answers_call_after_call(saved):
    ours, theirs = runtime.load(saved["mlp"]), burnish.load(saved["mlp"])
    rng = np.random.default_rng(2)
    kept = []
    for _ in range(4):
        x = rng.standard_normal((2, 20)).astype(np.float32)
        kept.append((ours(x), theirs(x)))
    for pair in kept:  # an answer stays what it was
        same(*pair)
    strided = rng.standard_normal((20, 2)).astype(np.float32).T
    same(ours(strided), theirs(strided))
    frozen = np.frombuffer(X.tobytes(), np.float32).reshape(X.shape)
    same(ours(frozen), theirs(frozen))
    same(ours(torch.from_numpy(X)), theirs(X))
    assert "float32[2, 20]" in repr(ours)
    assert ours.path == saved["mlp"]


def test_open_sizes_and_named_inputs(saved):
    ours, theirs = runtime.load(saved["block"]), burnish.load(saved["block"])
    rng = np.random.default_rng(3)
    for shape in ((2, 7), (1, 5), (3, 11)):
        tokens, mask = rng.integers(0, 5, shape), np.ones(shape, np.int64)
        same(ours(tokens, mask=mask), theirs(tokens, mask=mask))


def test_nested_outputs_of_every_kind(saved):
    ours, theirs = runtime.load(saved["mixed"]), burnish.load(saved["mixed"])
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, mask = rng.standard_normal((2, 20)).astype(np.float32), rng.random((2, 20)) > 0.5
        found = ours(x, mask)
        same(found, theirs(x, mask))
        assert found["all"][1][0] is not mask


def test_random_numbers_change_from_call_to_call(saved):
    ours = runtime.load(saved["noisy"])
    (first,), (second,) = leaves(ours(X)), leaves(ours(X))
    assert (abs(first - X - 0.5) < 0.5 + 1e-6).all()
    assert (first != second).any()


def test_bfloat16_with_ml_dtypes(saved):
    ours, theirs = runtime.load(saved["bf16"]), burnish.load(saved["bf16"])
    import ml_dtypes

    x = X.astype(ml_dtypes.bfloat16)
    same(ours(x), theirs(x))


def test_wrong_inputs_are_refused(saved):
    model = runtime.load(saved["mlp"])
    with pytest.raises(InvalidInputError, match="has shape"):
        model(X[:1])
    with pytest.raises(InvalidInputError, match="has dtype float64, the model takes float32"):
        model(X.astype(np.float64))
    with pytest.raises(InvalidInputError, match="got 2 inputs"):
        model(X, X)


def test_calls_from_several_threads_take_turns(saved):
    model = runtime.load(saved["mlp"])
    want = model(X)
    wrong = []

    def work() -> None:
        wrong.extend(1 for _ in range(50) if not np.array_equal(model(X), want))

    crowd = [threading.Thread(target=work) for _ in range(4)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert not wrong


def test_a_digest_and_foreign_files(saved, tmp_path, monkeypatch):
    digest = hashlib.sha256(saved["mlp"].read_bytes()).hexdigest()
    runtime.load(saved["mlp"], digest)
    with pytest.raises(ArtifactError, match="is not the file that was meant"):
        runtime.load(saved["mlp"], sha256="0" * 64)
    target = json.loads(members(saved["mlp"])[NAME])["target"]
    path = tmp_path / "m.burnish"

    def refused(message: str, **changes: object) -> None:
        changed_manifest(saved["mlp"], path, target={**target, **changes})
        with pytest.raises(ArtifactError, match=message):
            runtime.load(path)

    refused("needs a CPU with avx-9000", isa=["avx-9000"])
    refused("is for 'vulkan', and this runs models for cpu, cuda and opencl", kind="vulkan")
    refused("it names no architecture", kind="cuda", arches=["sm_x"])
    monkeypatch.setattr(cuda, "device_capability", lambda: 80)
    refused(
        "it is built for sm_90, and this machine's GPU is an sm_80", kind="cuda", arches=["sm_90"]
    )
    monkeypatch.setattr(cuda, "device_capability", lambda: "there is no driver")
    refused("cannot run here: there is no driver", kind="cuda", arches=["sm_90"])


def test_other_versions_of_tvm_ffi_are_refused(monkeypatch):
    monkeypatch.setattr(native, "version_of", lambda name: "0.1.15")
    with pytest.raises(ArtifactError, match=r"needs apache-tvm-ffi .* and 0.1.15 is installed"):
        native.open_runtime.__wrapped__()


ALONE = """
import sys
for name in ("torch", "tvm", "onnx", "safetensors", "psutil"):
    sys.modules[name] = None  # an import of it fails
import numpy as np
from burnish import runtime
model = runtime.load(sys.argv[1])
np.save(sys.argv[2], model(np.load(sys.argv[3])))
maps = open("/proc/self/maps").read()
assert "libtvm_runtime.so" in maps
assert "libtvm_compiler" not in maps and "libtorch" not in maps
"""


def test_it_needs_neither_tvm_nor_torch(saved, tmp_path):
    np.save(tmp_path / "x.npy", X)
    names = [str(saved["mlp"]), str(tmp_path / "y.npy"), str(tmp_path / "x.npy")]
    subprocess.run([sys.executable, "-c", ALONE, *names], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), burnish.load(saved["mlp"])(X))
