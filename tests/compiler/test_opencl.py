"""Models built for OpenCL: with and without a device, run beside eager where there is one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from small_nets import Block, Classifier, Mlp, made
from torch import nn

import burnish
from burnish.compiler.errors import BuildError, ConfigError, TargetError
from burnish.compiler.parity import parity
from burnish.targets.opencl.target import OpenclTarget
from opencl_support import require_device

CLOSE = 1e-5


class Net(nn.Module):
    """Products and a softmax, and a weight whose name is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(48, 33), nn.GELU())
        self.last = nn.Linear(33, 7)

    def forward(self, x):
        return torch.softmax(self.last(self.layers(x)), -1)


class Ordered(nn.Module):
    """What runs along an axis: sorts, running sums, places of extremes."""

    def forward(self, x):
        most, places = torch.topk(x, 3, -1)
        ordered, order = torch.sort(x, 1, descending=True)
        sums = torch.cumsum(x, 1), torch.cumprod(x, 0)
        return most, places, ordered, order, *sums, x.argmax(1), (x > 0).any(1), x.long() // 3


class Spatial(nn.Module):
    """Convolutions of one and three axes, a transposed one, pooling, a resize."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(3, 5, 3, padding=1, stride=2)
        self.back = nn.ConvTranspose2d(3, 4, 3, stride=2)
        self.three = nn.Conv3d(1, 2, 3)

    def forward(self, x):
        large = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
        small = nn.functional.adaptive_avg_pool2d(x, (4, 3))
        return self.one(x[..., 0]), self.back(x), self.three(x[:, None]), large, small


class Recurrent(nn.Module):
    """An LSTM of two layers and directions; its kernels' names would be longer than a file's."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 12, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(24, 6, batch_first=True)

    def forward(self, x):
        return self.gru(self.lstm(x)[0])[0]


class Chosen(nn.Module):
    """One of two branches, by what is known when it runs."""

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y * 2, (x,))


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def same(compiled: Any, model: nn.Module, *inputs: Any) -> None:
    with torch.no_grad():
        found = parity(compiled(*inputs), model(*inputs))
    assert found.rel <= CLOSE


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``Net`` as an artifact made where there is no device and no runtime."""
    reason = "there is no OpenCL driver"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TVM_COMPILE_FORCE_FALLBACK", "1")
        patch.setattr(OpenclTarget, "why_not_here", lambda self: reason)
        compiled = burnish.compile(made(Net), (drawn(5, 48),), target="opencl")
        assert b"__kernel void" in compiled.library.read_bytes()
        assert {kernel.rule for kernel in compiled.kernels.values()} >= {"matvec"}
        path = compiled.save(tmp_path_factory.mktemp("opencl") / "net.burnish")
        loaded = burnish.load(path)
        assert loaded.target == dataclasses.replace(compiled.target, threads=loaded.target.threads)
        for model in (compiled, loaded):
            with pytest.raises(TargetError, match=f"for 'opencl' and cannot run here: {reason}"):
                model(drawn(5, 48))
    return path


def test_what_was_built_without_a_device_runs_on_one(elsewhere):
    require_device()
    compiled, x = burnish.load(elsewhere), drawn(5, 48)
    same(compiled, made(Net), x)
    same(compiled, made(Net), torch.flip(x, [0]))
    answer = compiled(x.numpy())
    assert isinstance(answer, np.ndarray)
    assert np.array_equal(answer, compiled(x).numpy())


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        pytest.param(
            made(Classifier), (drawn(2, 3, 9, 7),), id="classifier", marks=pytest.mark.heavy
        ),
        pytest.param(Ordered().eval(), (drawn(3, 11) * 9,), id="ordered"),
        pytest.param(Chosen().eval(), (drawn(3, 5),), id="chosen"),
        pytest.param(
            made(Block),
            (torch.arange(14).reshape(2, 7), torch.ones(2, 7)),
            id="block",
            marks=pytest.mark.heavy,
        ),
        pytest.param(Ordered().eval(), (drawn(3, 3000),), id="long", marks=pytest.mark.heavy),
        pytest.param(made(Spatial), (drawn(2, 3, 9, 7),), id="spatial", marks=pytest.mark.heavy),
        pytest.param(made(Recurrent), (drawn(2, 5, 8),), id="recurrent", marks=pytest.mark.heavy),
        pytest.param(
            made(Net).bfloat16(), (drawn(5, 48).bfloat16(),), id="bfloat16", marks=pytest.mark.heavy
        ),
    ],
)
def test_a_network_gives_what_eager_gives(model, inputs):
    require_device()
    compiled = burnish.compile(model, inputs, target="opencl", cache=False)
    for x in (inputs, [-v if v.is_floating_point() else v for v in inputs]):
        with torch.no_grad():
            found = parity(compiled(*x), model(*x))
        assert found.rel <= (CLOSE if inputs[0].dtype != torch.bfloat16 else 1e-2)


@pytest.mark.parametrize("code", ["int4", pytest.param("int8", marks=pytest.mark.heavy)])
def test_small_weights_and_an_open_batch(code):
    require_device()
    settings = {"quantize": code, "do_no_harm": False, "dynamic": {"input": {0: "batch"}}}
    model, x = made(Mlp), drawn(5, 20)
    plain = burnish.compile(model, (x,), **settings)
    compiled = burnish.compile(model, (x,), target="opencl", **settings)
    assert compiled.params_bytes < (0.6 if code == "int4" else 0.7) * 4 * 832
    for rows in (1, 7, 300):
        same(compiled, plain, drawn(rows, 20))


def test_random_numbers_are_new_at_each_call():
    require_device()
    node = helper.make_node("RandomNormalLike", ["x"], ["y"])
    sizes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [40, 50]) for n in "xy"]
    graph = helper.make_graph([node], "noise", sizes[:1], sizes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.checker.check_model(model)
    x = np.zeros((40, 50), np.float32)
    compiled = burnish.compile(model, (x,), target="opencl")
    (first,), (second,) = compiled(x), compiled(x)
    assert not np.array_equal(first, second)
    assert abs(first.mean()) < 0.15
    assert 0.9 < first.std() < 1.1


def test_half_precision_is_for_devices_that_have_it(monkeypatch):
    monkeypatch.setattr(OpenclTarget, "why_not_here", lambda self: "not here")
    model, x = made(Net).half(), drawn(5, 48).half()
    with pytest.raises(BuildError, match=r"(?s)float16.*'opencl'.*model\.float\(\).*opencl:mali"):
        burnish.compile(model, (x,), target="opencl")
    found = burnish.compile(model, (x,), target="opencl:mali")
    assert b"cl_khr_fp16" in found.library.read_bytes()


def test_what_is_for_cpus_is_refused():
    with pytest.raises(ConfigError, match=r"is for CPUs; .*model\.half\(\)"):
        burnish.compile(made(Net), (drawn(5, 48),), target="opencl", precision="fp16")
    with pytest.raises(TargetError, match="tuning"):
        burnish.compile(made(Net), (drawn(5, 48),), target="opencl", tune=1)
