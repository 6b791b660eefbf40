"""The bundle for a machine with a GPU, unpacked and loaded under a stand-in for the driver."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile

import pytest

from cuda_stub import build_stub, run_under_stub
from cuda_support import require_compiler
from support import ROOT

CASES = {
    "product-77x130x333-float16": "(77, 130)",
    "product-49x512x4608-float16": "(49, 512)",
    "product-128x3072x768-float16-sm_90a": "(128, 3072)",
    "attention-1x6of3x77x130x40-float16": "(1, 77, 6, 40)",
    "product-4x4096x4096-float16": "(4, 4096)",
}
"""With odd sizes, with its sums in parts, for Hopper alone, attention in one kernel, few rows."""
PROGRAM = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
import gpu_runtime
gpu_runtime._cuda_runtime = lambda: "libcudart.so.13"  # the stand-in, not that of pip
from gpu_cases import CASES, case_id
tvm_ffi = gpu_runtime.open_runtime(folder)
assert Path(tvm_ffi.__file__).is_relative_to(folder)
assert "tvm" not in sys.modules
allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
def on_gpu(tensor):
    shape, device = tvm_ffi.Shape(tensor.shape), tvm_ffi.device("cuda", 0)
    return allocate(shape, tvm_ffi.dtype("float16"), device, None)
for name in sys.argv[2:]:
    (case,) = (one for one in CASES if case_id(one) == name)
    model, inputs = case.load()
    loaded = gpu_runtime.Loaded(tvm_ffi, folder / "libraries" / f"{name}.so")
    weights = tvm_ffi.convert([on_gpu(value) for value in model.state_dict().values()])
    for _ in range(2):
        out = loaded._main(*map(on_gpu, inputs), weights)
        out = out if isinstance(out, tvm_ffi.Tensor) else out[0]
        print(tuple(out.shape), out.dtype, out.device)
"""


@pytest.mark.heavy
def test_the_bundle_is_loaded_without_the_compiler(tmp_path):
    require_compiler()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    bundle = tmp_path / "bundle.zip"
    command = [sys.executable, str(ROOT / "benchmarks/gpu_bundle.py"), "--python", version]
    command += ["--only", *CASES, "--work", str(tmp_path / "work"), "--out", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert bundle.stat().st_size < 60e6
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(bundle) as packed:
        packed.extractall(folder)
    rules = [json.loads((folder / f"libraries/{case}.json").read_text())["rules"] for case in CASES]
    assert "split" in rules[1].values()
    assert "warp-group" in rules[2].values()
    assert list(rules[3].values()) == ["attention"]
    assert "matvec" in rules[4].values()
    stub = tmp_path / "stub"
    stub.mkdir()
    printed, calls = run_under_stub(build_stub(stub), PROGRAM, [str(folder), *CASES], "sm_90")
    expected = [f"{shape} float16 cuda:0" for shape in CASES.values() for _ in range(2)]
    assert printed.splitlines() == expected
    launched = {call[1] for call in calls if call[0] == "launch"}
    names = {
        f"{name}_kernel{part}"
        for one in rules
        for name, rule in one.items()
        for part in (("", "_1") if rule == "split" else ("",))
    }
    assert launched == names
    assert not [call for call in calls if call[0] in ("missing", "refused")]


def test_cases_for_hopper_alone_run_on_it_alone(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    cases = importlib.import_module("gpu_cases")
    names = [cases.case_id(case) for case in cases.CASES]
    assert len(set(names)) == len(names)
    hopper = [case for case in cases.CASES if case.arch]
    assert {case.arch for case in hopper} == {"sm_90a"}
    for capability in ((8, 0), (9, 0), (10, 0)):
        run = [case for case in cases.CASES if cases.runs_on(case, capability)]
        assert [case for case in run if case.arch] == (hopper if capability == (9, 0) else [])
