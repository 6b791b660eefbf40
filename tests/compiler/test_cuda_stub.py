"""Models for GPUs loaded and called by all of TVM's CUDA runtime, under a stand-in for the driver.

Kernels are looked up in the machine code and launched, and the launches are checked; none runs.
"""

from __future__ import annotations

import pytest
import torch
from nvidia_support import build_stub as build_nvidia_stub
from small_nets import made

import burnish
from burnish.compiler.errors import ConfigError
from cuda_stub import build_stub, run_under_stub
from cuda_support import require_compiler

PROGRAM = """
import sys
import numpy as np
import burnish
model = burnish.load(sys.argv[1])
for _ in range(3):
    out = model(np.ones((5, 48), "float16"))
    print(out.shape, out.dtype)
"""


class Net(torch.nn.Module):
    """Two products, one of which wants padding, and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(48, 33), torch.nn.GELU())
        self.last = torch.nn.Linear(33, 7)

    def forward(self, x):
        return torch.softmax(self.last(self.layers(x)), -1)


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    require_compiler()
    return build_stub(tmp_path_factory.mktemp("stub"))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    require_compiler()
    compiled = burnish.compile(
        made(Net).half(), (torch.randn(5, 48).half(),), target="cuda:sm_80,sm_90"
    )
    names = {f"{name}_kernel" for name in compiled.kernels}
    return compiled.save(tmp_path_factory.mktemp("model") / "net.burnish"), names


@pytest.mark.parametrize("arch", [pytest.param("sm_80", marks=pytest.mark.heavy), "sm_90"])
def test_each_kernel_is_found_by_name_and_launched_within_its_limits(stub, artifact, arch):
    path, names = artifact
    printed, calls = run_under_stub(stub, PROGRAM, [str(path)], arch)
    assert printed.splitlines() == ["(5, 7) float16"] * 3
    assert [call[0] for call in calls].count("load") == 1
    assert {call[1] for call in calls if call[0] == "kernel"} == names
    launches = [call for call in calls if call[0] == "launch"]
    assert [call[1] for call in launches] == [call[1] for call in launches[:3]] * 3
    assert {call[1] for call in launches} == names
    assert not [call for call in calls if call[0] in ("missing", "refused")]


@pytest.mark.heavy
def test_an_older_gpu_is_refused_before_anything_is_launched(stub, artifact):
    with pytest.raises(AssertionError, match="this machine's GPU is an sm_75"):
        run_under_stub(stub, PROGRAM, [str(artifact[0])], "sm_75")
    assert "launch" not in (stub / "log").read_text()


@pytest.mark.heavy
def test_a_kernel_that_is_not_there_is_named(stub, artifact):
    """No machine code for sm_86 alone; the stand-in, unlike a driver, takes none of sm_80."""
    with pytest.raises(AssertionError, match=r"cuModuleGetFunction fused_\w+_kernel failed"):
        run_under_stub(stub, PROGRAM, [str(artifact[0])], "sm_86")
    assert "missing" in (stub / "log").read_text()


def test_kernels_between_input_and_output_are_recorded_once_and_launched_as_a_graph(stub, tmp_path):
    """The first reads what is given, the last writes what is given back; the others are not."""
    net = torch.nn.Sequential(*(torch.nn.Linear(48, 48) for _ in range(4))).eval().half()
    compiled = burnish.compile(
        net, (torch.randn(5, 48).half(),), "cuda:sm_90", cuda_graphs=True, cache=False
    )
    path = compiled.save(tmp_path / "net.burnish")
    printed, calls = run_under_stub(stub, PROGRAM, [str(path)], "sm_90")
    assert printed.splitlines() == ["(5, 48) float16"] * 3
    kinds = [call[0] for call in calls if call[0] not in ("load", "kernel")]
    first = ["launch", "launch", "launch", "capture", "captured", "captured", "capture", "launch"]
    later = ["launch", "graph", "launch"]
    assert kinds == [*first, *later, *later]
    assert [call[1] for call in calls if call[0] == "graph"] == ["2", "2"]


def test_graphs_are_for_gpus():
    with pytest.raises(ConfigError, match="cuda_graphs is for CUDA; the target 'cpu'"):
        burnish.compile(made(Net), (torch.randn(5, 48),), cuda_graphs=True)


RUNTIME = """
import sys
import numpy as np
from burnish import runtime
model = runtime.load(sys.argv[1])
assert "tvm" not in sys.modules
for _ in range(2):
    out = model(np.ones((5, 16), "float32"))
    print(out.shape, out.dtype, model.manifest.libraries)
"""


def test_a_model_that_calls_cublas_is_loaded_by_the_runtime_alone(stub, tmp_path, monkeypatch):
    nvidia = str(build_nvidia_stub(tmp_path))
    monkeypatch.setenv("BURNISH_CUBLASLT", nvidia)
    monkeypatch.setenv("BURNISH_CUDA_DRIVER", nvidia)
    net = torch.nn.Sequential(torch.nn.Linear(16, 24), torch.nn.Linear(24, 8)).eval()
    compiled = burnish.compile(net, (torch.ones(5, 16),), target="cuda:sm_80", libraries="cublas")
    path = compiled.save(tmp_path / "net.burnish")
    printed, _ = run_under_stub(stub, RUNTIME, [str(path)], "sm_80")
    line = "(5, 8) float32 {'cublas': {'least': '12.0'}}"
    assert printed.splitlines() == [line] * 2
