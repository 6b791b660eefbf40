"""Models built for CUDA on a machine that need not have a GPU."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_nets import made

import burnish
from burnish import runtime
from burnish.compiler.errors import ArtifactError, BuildError, ConfigError, TargetError
from burnish.runtime import cuda
from burnish.targets.cuda import nvrtc
from burnish.targets.cuda.target import CudaTarget
from cuda_support import require_compiler

TARGET = "cuda:sm_80,sm_90"


class Net(torch.nn.Module):
    """Products that fit tensor cores and ones that do not, and a weight whose name is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(48, 33), torch.nn.GELU())
        self.last = torch.nn.Linear(33, 7)

    def forward(self, x):
        return torch.softmax(self.last(self.layers(x)), -1)


@pytest.fixture(scope="module")
def compiled():
    require_compiler()
    return burnish.compile(made(Net).half(), (torch.randn(5, 48).half(),), target=TARGET)


def test_every_kernel_is_compiled_for_each_architecture(compiled):
    found = compiled.report.resources
    assert set(found) == {"sm_80", "sm_90"}
    for kernels in found.values():
        assert kernels
        assert all(0 < one["registers"] <= 255 for one in kernels)
    assert {kernel.rule for kernel in compiled.kernels.values()} >= {"tensor-core"}


def test_the_library_holds_machine_code_and_no_source(compiled):
    content = compiled.library.read_bytes()
    assert content.count(b"\x7fELF") >= 3  # itself, and one cubin an architecture
    assert b"__global__" not in content
    assert b".target sm_90" in content or b"sm_90" in content


def test_it_is_saved_and_loaded_and_says_why_it_cannot_run(compiled, tmp_path, monkeypatch):
    reason = "it needs an NVIDIA driver"
    monkeypatch.setattr(CudaTarget, "why_not_here", lambda self: reason)
    loaded = burnish.load(compiled.save(tmp_path / "net.burnish"))
    assert loaded.target == dataclasses.replace(compiled.target, threads=loaded.target.threads)
    assert loaded.report.resources == compiled.report.resources
    with pytest.raises(TargetError, match=f"{TARGET}.*cannot run here: {reason}"):
        loaded(torch.randn(5, 48).half())
    monkeypatch.setattr(cuda, "device_capability", lambda: reason)
    with pytest.raises(ArtifactError, match=f"net.burnish cannot run here: {reason}"):
        runtime.load(tmp_path / "net.burnish")


def test_a_kernel_that_does_not_compile_fails_the_build(monkeypatch):
    require_compiler()
    compile_source = nvrtc.compile_source
    monkeypatch.setattr(
        nvrtc,
        "compile_source",
        lambda text, arch: compile_source(f"{text}\nint x = nothing;", arch),
    )
    with pytest.raises(BuildError, match=r'(?s)does not compile for sm_80.*"nothing"'):
        burnish.compile(made(Net), (torch.randn(5, 48),), target="cuda:sm_80")


def test_what_is_for_cpus_is_refused():
    with pytest.raises(ConfigError, match=r"is for CPUs; .*model\.half\(\)"):
        burnish.compile(made(Net), (torch.randn(5, 48),), target=TARGET, precision="fp16")


def test_tf32_is_what_one_asks_for():
    require_compiler()
    rules = [
        {kernel.rule for kernel in compiled.kernels.values()}
        for compiled in (
            burnish.compile(
                made(Net), (torch.randn(5, 48),), "cuda:sm_80", precision=name, do_no_harm=False
            )
            for name in ("fp32", "tf32")
        )
    ]
    assert "tensor-core" not in rules[0]
    assert "tensor-core" in rules[1]


@pytest.mark.parametrize("target", ["cpu", "cuda:sm_75,sm_80"])
def test_tf32_is_refused_where_there_is_none(target):
    with pytest.raises(ConfigError, match=r"needs tensor cores of sm_80 or later"):
        burnish.compile(made(Net), (torch.randn(5, 48),), target=target, precision="tf32")
