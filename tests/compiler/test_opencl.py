"""Models built for OpenCL, with or without a device of it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_nets import made

import burnish
from burnish.compiler.errors import BuildError, ConfigError, TargetError
from burnish.targets.opencl.target import OpenclTarget


class Net(torch.nn.Module):
    """Products and a softmax, and a weight whose name is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(48, 33), torch.nn.GELU())
        self.last = torch.nn.Linear(33, 7)

    def forward(self, x):
        return torch.softmax(self.last(self.layers(x)), -1)


def test_it_is_built_and_saved_where_there_is_no_device(tmp_path, monkeypatch):
    reason = "there is no OpenCL driver"
    monkeypatch.setattr(OpenclTarget, "why_not_here", lambda self: reason)
    compiled = burnish.compile(made(Net), (torch.randn(5, 48),), target="opencl")
    assert b"__kernel void" in compiled.library.read_bytes()
    assert {kernel.rule for kernel in compiled.kernels.values()} >= {"matmul"}
    loaded = burnish.load(compiled.save(tmp_path / "net.burnish"))
    assert loaded.target == dataclasses.replace(compiled.target, threads=loaded.target.threads)
    with pytest.raises(TargetError, match=f"for 'opencl' and cannot run here: {reason}"):
        loaded(torch.randn(5, 48))


def test_half_precision_is_for_devices_that_have_it():
    model, x = made(Net).half(), torch.randn(5, 48).half()
    with pytest.raises(BuildError, match=r"(?s)float16.*'opencl'.*model\.float\(\).*opencl:mali"):
        burnish.compile(model, (x,), target="opencl")
    found = burnish.compile(model, (x,), target="opencl:mali")
    assert b"cl_khr_fp16" in found.library.read_bytes()


def test_what_is_for_cpus_is_refused():
    with pytest.raises(ConfigError, match=r"is for CPUs; .*model\.half\(\)"):
        burnish.compile(made(Net), (torch.randn(5, 48),), target="opencl", precision="fp16")
