"""The wheel of burnish-runtime, installed by pip into an environment with nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from small_nets import Classifier, made

import burnish
from burnish import models
from burnish.runtime.pins import PINS
from opencl_support import require_device
from support import ROOT

MB = 1000 * 1000
LIMIT = 60 * MB
"""Of what this distribution brings: itself and tvm-ffi; NumPy, which most have, is not counted."""

RUN = """
import time
start = time.perf_counter()
import burnish_runtime
imported = time.perf_counter() - start
import json, sys
import numpy as np

model = burnish_runtime.load(sys.argv[1])
inputs = np.load(sys.argv[2])
first = model(*[inputs[name] for name in inputs.files])
answered = time.perf_counter() - start
second = model(*[inputs[name] for name in inputs.files])

def leaves(value):
    if isinstance(value, dict | list | tuple):
        items = value.values() if isinstance(value, dict) else value
        return [leaf for item in items for leaf in leaves(item)]
    return [value]

np.savez(sys.argv[3], *leaves(first))
assert all(map(np.array_equal, leaves(first), leaves(second)))
maps = open("/proc/self/maps").read()
print(json.dumps({
    "imported": imported,
    "answered": answered - imported,
    "compiler": "libtvm_compiler" in maps,
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Of an environment with the wheel and what it depends on."""
    where = tmp_path_factory.mktemp("wheel")
    quiet = ["-qq", "--disable-pip-version-check"]
    copy = where / "source"
    (copy / "burnish").mkdir(parents=True)
    for part in ("runtime", "burnish/runtime", "targets/opencl"):
        ignored = ["--exclude=__pycache__", "--exclude=build"]
        files = subprocess.run(
            ["tar", "-C", str(ROOT), *ignored, "-cf", "-", part], check=True, capture_output=True
        ).stdout
        subprocess.run(["tar", "-C", str(copy), "-xf", "-"], input=files, check=True)
    build = [sys.executable, "-m", "pip", "wheel", *quiet, "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(where), str(copy / "runtime")], check=True)
    (wheel,) = where.glob("burnish_runtime-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(where / "venv")], check=True)
    found = where / "venv" / "bin" / "python"
    subprocess.run([str(found), "-m", "pip", "install", *quiet, str(wheel)], check=True)
    return found


def answers(python: Path, path: Path, inputs: list[np.ndarray], where: Path):
    """What the model in ``path`` gives in that environment, and how it went."""
    np.savez(where / "in.npz", *inputs)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), "-c", RUN, str(path), str(where / "in.npz"), str(where / "out.npz")],
        check=True,
        capture_output=True,
        text=True,
        cwd=where,
        env={**environment, "BURNISH_CACHE": str(where / "cache")},
    )
    outputs = np.load(where / "out.npz")
    return [outputs[name] for name in outputs.files], json.loads(done.stdout)


@pytest.mark.heavy
def test_the_wheel_in_an_environment_of_its_own(python, tmp_path):
    """One test, so that one process makes the environment."""
    check_what_it_needs(python)
    check_sizes(python)
    check_networks(python, tmp_path)
    check_opencl(python, tmp_path)


def check_opencl(python: Path, tmp_path: Path) -> None:
    require_device()
    net, x = made(Classifier), torch.randn(2, 3, 9, 11)
    path = burnish.compile(net, (x,), target="opencl", do_no_harm=False).save(
        tmp_path / "opencl.burnish"
    )
    ((found,), went) = answers(python, path, [x.numpy()], tmp_path)
    np.testing.assert_array_equal(found, burnish.load(path)(x.numpy()))
    np.testing.assert_allclose(found, net(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert not went["compiler"]
    assert {"torch", "tvm"}.isdisjoint(went["modules"])
    print(f"opencl: import {went['imported']:.2f} s, first answer {went['answered']:.2f} s")


def check_networks(python: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    cnn = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 8, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 36, 10),
    ).eval()
    x = torch.randn(1, 3, 16, 16)
    minilm = models.load("minilm")
    for name, model, inputs in (
        ("cnn", cnn, (x,)),
        ("minilm", minilm.model, minilm.example_inputs),
    ):
        compiled = burnish.compile(model, inputs, quantize="int8", do_no_harm=False)
        path = compiled.save(tmp_path / f"{name}.burnish")
        arrays = [value.numpy() for value in inputs]
        found, went = answers(python, path, arrays, tmp_path)
        want = burnish.load(path)(*arrays)
        want = list(want.values()) if isinstance(want, dict) else want
        want = list(want) if isinstance(want, tuple | list) else [want]
        assert len(found) == len(want)
        for ours, theirs in zip(found, want, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert not went["compiler"]
        assert {"torch", "tvm"}.isdisjoint(went["modules"])
        print(f"{name}: import {went['imported']:.2f} s, first answer {went['answered']:.2f} s")


def check_sizes(python: Path) -> None:
    code = (
        "import json, pathlib, sysconfig; root = pathlib.Path(sysconfig.get_paths()['purelib'])\n"
        "print(json.dumps({p.name: sum(f.stat().st_size for f in p.rglob('*') if f.is_file())\n"
        "    for p in root.iterdir() if p.is_dir()}))"
    )
    sizes = json.loads(
        subprocess.run([str(python), "-c", code], check=True, capture_output=True).stdout
    )
    assert {"burnish_runtime", "tvm_ffi", "numpy"} <= set(sizes)
    assert {"tvm", "torch", "burnish"}.isdisjoint(sizes)
    ours = sizes["burnish_runtime"] + sizes["tvm_ffi"]
    assert ours < LIMIT, sizes
    print({name: round(size / MB, 1) for name, size in sizes.items()})


def check_what_it_needs(python: Path) -> None:
    (wheel,) = python.parents[2].glob("burnish_runtime-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        (about,) = (name for name in names if name.endswith("METADATA"))
        said = file.read(about).decode()
    assert f"Requires-Dist: apache-tvm-ffi=={PINS['apache-tvm-ffi']}" in said
    required = [line for line in said.splitlines() if line.startswith("Requires-Dist")]
    assert sum("extra" not in line for line in required) == 2
    assert "burnish_runtime/lib/libtvm_runtime.so" in names
    assert "burnish_runtime/lib/libburnish_opencl.so" in names
    assert not any("compiler" in name for name in names)
