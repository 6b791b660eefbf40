"""The bundle for a machine with a GPU, unpacked and loaded under a stand-in for the driver."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import pytest

from cuda_stub import build_stub, run_under_stub
from cuda_support import require_compiler
from support import ROOT

CASE = "product-77x130x333-float16"
PROGRAM = """
import sys
from pathlib import Path
folder, name = Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, str(folder))
import gpu_runtime
gpu_runtime._cuda_runtime = lambda: "libcudart.so.13"  # the stand-in, not that of pip
from gpu_cases import CASES, case_id
(case,) = (one for one in CASES if case_id(one) == name)
model, (x,) = case.load()
tvm_ffi = gpu_runtime.open_runtime(folder)
assert Path(tvm_ffi.__file__).is_relative_to(folder)
assert "tvm" not in sys.modules
loaded = gpu_runtime.Loaded(tvm_ffi, folder / "libraries" / f"{name}.so")
allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
def on_gpu(tensor):
    shape, device = tvm_ffi.Shape(tensor.shape), tvm_ffi.device("cuda", 0)
    return allocate(shape, tvm_ffi.dtype("float16"), device, None)
weights = tvm_ffi.convert([on_gpu(value) for value in model.state_dict().values()])
for _ in range(2):
    out = loaded._main(on_gpu(x), weights)
    out = out if isinstance(out, tvm_ffi.Tensor) else out[0]
    print(tuple(out.shape), out.dtype, out.device)
"""


@pytest.mark.heavy
def test_the_bundle_is_loaded_without_the_compiler(tmp_path):
    require_compiler()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    bundle = tmp_path / "bundle.zip"
    command = [sys.executable, str(ROOT / "benchmarks/gpu_bundle.py"), "--python", version]
    command += ["--only", CASE, "--work", str(tmp_path / "work"), "--out", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert bundle.stat().st_size < 60e6
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(bundle) as packed:
        packed.extractall(folder)
    described = json.loads((folder / f"libraries/{CASE}.json").read_text())
    stub = tmp_path / "stub"
    stub.mkdir()
    printed, calls = run_under_stub(build_stub(stub), PROGRAM, [str(folder), CASE], "sm_90")
    assert printed.splitlines() == ["(77, 130) float16 cuda:0"] * 2
    launched = {call[1] for call in calls if call[0] == "launch"}
    assert launched == {f"{name}_kernel" for name in described["rules"]}
    assert not [call for call in calls if call[0] in ("missing", "refused")]
