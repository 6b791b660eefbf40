"""Regions as ONNX models, run by ONNX Runtime, and TensorRT's part by a stand-in."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorrt_stub
import torch
import tvm
from small_nets import Block, Classifier, made
from tvm import relax
from typer.testing import CliRunner

import burnish
from burnish import runtime
from burnish.cli import app
from burnish.compiler import artifact, pipeline
from burnish.compiler.build import build_library
from burnish.compiler.config import CompileConfig
from burnish.compiler.driver import build, import_model, optimize
from burnish.compiler.errors import ArtifactError, BuildError, PassError, TargetError
from burnish.compiler.external import tensorrt
from burnish.compiler.external.engines import with_head
from burnish.compiler.external.onnx_region import region_model, writes
from burnish.models import bench_nets
from burnish.passes.graph import bindings, op_name
from burnish.passes.params import get_params, input_vars
from burnish.passes.regions import find_regions
from burnish.passes.slice_splits import SliceSplits
from burnish.runtime.reading import read_artifact
from burnish.targets.choose import choose_target
from burnish.targets.cuda.target import CudaTarget
from cuda_support import require_compiler

GPU = "NVIDIA Stand-in"


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_stub)
    monkeypatch.setattr(tensorrt, "gpu_name", lambda device: GPU)
    monkeypatch.setattr(tensorrt, "gpu_capability", lambda device: 80)
    monkeypatch.setattr(tensorrt_stub, "refuse", [])
    monkeypatch.setattr(tensorrt_stub, "executions", [])


def cleaned(net: torch.nn.Module, *inputs: torch.Tensor) -> tvm.IRModule:
    """The graph as the phase that cuts regions reads it."""
    phases = pipeline.graph_phases(choose_target("cpu"), CompileConfig())
    (clean,) = (phase for phase in phases if phase.name == "clean")
    return tvm.transform.Sequential([*clean.passes, SliceSplits()])(import_model(net, inputs).mod)


def by_onnxruntime(net: torch.nn.Module, *inputs: torch.Tensor) -> int:
    """Run each region of ``net`` by ONNX Runtime, the rest by nothing: the net is one region.

    Returns how many calls it has.
    """
    mod = cleaned(net, *inputs)
    (region,) = find_regions(mod["main"], writes)
    weights = {name: value.numpy() for name, value in get_params(mod).items()}
    model = region_model(region, weights)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    given = dict(zip((var.name for var in input_vars(mod)), inputs, strict=True))
    read = [var.name for var in region.inputs if var.name not in weights]
    found = session.run(None, {f"in{i}": given[name].numpy() for i, name in enumerate(read)})
    with torch.no_grad():
        wanted = net(*inputs)
    wanted = wanted if isinstance(wanted, tuple | list) else [wanted]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        scale = float(other.float().abs().max())
        assert np.abs(one.astype("float32") - other.float().numpy()).max() <= 2e-5 * max(scale, 1)
    return len(region.calls)


class Pools(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3)
        self.line = torch.nn.Conv1d(6, 4, 3, padding=2, dilation=2)

    def forward(self, x):
        y = torch.nn.functional.max_pool2d(self.one(x), 3, 2, 1)
        z = torch.nn.functional.avg_pool2d(y, 2, 1, 1)
        w = torch.nn.functional.adaptive_avg_pool2d(z, 1)
        return self.line(y.flatten(2)), z.clamp(-0.5, 0.5), w.squeeze(-1)


class Pointwise(torch.nn.Module):
    def forward(self, x, y):
        a = torch.nn.functional.gelu(x) + torch.nn.functional.gelu(y, approximate="tanh")
        b = torch.nn.functional.silu(x) * torch.sigmoid(y) - torch.rsqrt(x * x + 1)
        c = torch.where(x < y, torch.exp(-x.abs()), torch.log(y * y + 1)) / (y.abs() + 1)
        d = torch.log_softmax(torch.cat([a, b], -1), -1)
        return d, torch.stack([b.mean(-1), c.amax(-1), c.sum(-1), a.amin(-1)]), torch.erf(c)


class Attention(torch.nn.Module):
    def forward(self, q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


class Norms(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.LayerNorm(12)
        self.rms = torch.nn.RMSNorm(12, eps=1e-5)

    def forward(self, x):
        first, second = torch.chunk(self.rms(self.layer(x)), 2, -1)
        return first * second[:, 1:2].expand(-1, 5, -1)


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        (Classifier, [(2, 3, 9, 11)]),
        (Pools, [(2, 3, 17, 13)]),
        (Pointwise, [(3, 1, 7), (3, 5, 7)]),
        (Attention, [(2, 3, 5, 8)] * 3),
        (Norms, [(2, 5, 12)]),
    ],
)
def test_a_net_is_one_model(kind, shapes):
    assert by_onnxruntime(made(kind), *(torch.randn(shape) for shape in shapes)) > 0


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["mobilenetv2", "vit-s16", "llama-64"])
def test_networks_of_the_benchmark_are_one_model(name):
    net, inputs = bench_nets.load(name)
    assert by_onnxruntime(net, *inputs) > 20


def engines(net: torch.nn.Module, *inputs: torch.Tensor) -> tvm.IRModule:
    return tensorrt.CallTensorrt(tensorrt.build_here)(cleaned(net, *inputs))


def test_a_region_becomes_a_call_of_an_engine_that_is_a_weight():
    net, inputs = made(Block), (torch.randint(0, 50, (2, 7)), torch.ones(2, 7))
    new = engines(net, *inputs)
    calls = [op_name(b.value) for b in bindings(new["main"]) if isinstance(b.value, relax.Call)]
    assert calls == ["relax.call_dps_packed", "relax.argmax"]
    engine = get_params(new)["tensorrt.0"].numpy().tobytes()
    assert engine.startswith(
        b'{"capability": "sm_80", "gpu": "NVIDIA Stand-in", "version": "10.0.1"}\nplan'
    )


def test_a_whole_model_by_engines(tmp_path, monkeypatch):
    require_compiler()
    monkeypatch.setattr(CudaTarget, "why_not_here", lambda self: "")
    net, x = made(Classifier), torch.randn(2, 3, 16, 16)
    optimized = optimize(import_model(net, (x,)), "cuda:sm_80", libraries="tensorrt")
    assert list(get_params(optimized.mod)) == ["tensorrt.0"]
    assert any(row.name == "CallTensorrt" for row in optimized.report.rows)
    built = build_library(optimized.mod, optimized.target, tmp_path)
    tensorrt.register()
    # No kernel of the GPU is left in it, so that its program runs on the CPU too.
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(built.path)), tvm.cpu())
    weights = [get_params(optimized.mod)[name] for name in built.weights]
    for _ in range(2):
        (found,) = machine["main"](tvm.runtime.tensor(x.numpy()), weights)
    np.testing.assert_allclose(found.numpy(), net(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert tensorrt_stub.executions == [0, 0]


def test_an_artifact_says_what_its_engines_are_for(tmp_path, monkeypatch):
    """Compiled where a GPU is pretended; opened nowhere, since no GPU runs what is left."""
    require_compiler()
    net, x = made(Classifier), torch.randn(2, 3, 16, 16)
    with monkeypatch.context() as here:
        here.setattr(CudaTarget, "why_not_here", lambda self: "")
        optimized = optimize(import_model(net, (x,)), "cuda:sm_80", libraries="tensorrt")
    compiled = build(optimized)
    path = compiled.save(tmp_path / "net.burnish")
    engines = {"version": "10.0.1", "gpu": GPU, "capability": "sm_80"}
    assert read_artifact(path).manifest.libraries == {"tensorrt": engines}
    shown = CliRunner().invoke(app, ["inspect", str(path), "--json"]).stdout
    assert json.loads(shown)["manifest"]["libraries"] == {"tensorrt": engines}
    assert burnish.load(path).params.keys() == {"tensorrt.0"}  # no GPU: to look at
    monkeypatch.setattr(CudaTarget, "why_not_here", lambda self: "")
    wanted = r"engines of TensorRT 10.0.1 for sm_80 \(NVIDIA Stand-in\), and here are TensorRT {}: "
    wanted += r"compile the model here, or pip install tensorrt==10.0.1 on such a GPU"
    monkeypatch.setattr(artifact, "device_capability", lambda: 90)
    with pytest.raises(ArtifactError, match=wanted.format("10.0.1 and sm_90")):
        burnish.load(path)
    monkeypatch.setattr(artifact, "device_capability", lambda: 80)
    monkeypatch.setattr(tensorrt_stub, "__version__", "10.1.0")
    with pytest.raises(ArtifactError, match=wanted.format("10.1.0 and sm_80")):
        burnish.load(path)
    with pytest.raises(ArtifactError, match=r"engines of TensorRT 10.0.1.*pip install burnish"):
        runtime.load(path)


def test_a_region_that_tensorrt_does_not_read():
    tensorrt_stub.refuse.append("In node 3: UNSUPPORTED_NODE")
    with pytest.raises(BuildError, match=r"does not read a region: In node 3: UNSUPPORTED_NODE"):
        tensorrt.build_engine(b"", GPU, 80)


def test_an_engine_of_another_gpu_or_version():
    engine = with_head(b"plan", "9.2", "NVIDIA A10", 86)
    with pytest.raises(TargetError, match=r"for TensorRT 9.2 on NVIDIA A10; here is 10.0.1 on"):
        tensorrt.opened(engine, GPU)


def test_an_engine_that_is_not_the_models_own():
    call = tensorrt.Engines(lambda device: GPU)
    one = tvm.runtime.tensor(np.zeros(3, "uint8"))
    with pytest.raises(TargetError, match="not the one it was compiled with"):
        call(one, "0" * 64, one)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(TargetError, match=r"need its Python package.*pip install tensorrt"):
        tensorrt.build_engine(b"", GPU, 80)


def test_engines_are_built_on_the_gpu(monkeypatch):
    monkeypatch.setattr(CudaTarget, "why_not_here", lambda self: "there is none")
    with pytest.raises(TargetError, match="built on the GPU that runs it, but there is none"):
        burnish.compile(made(Block), target="cuda", libraries="tensorrt")


def test_the_pass_is_named_where_it_fails(monkeypatch):
    monkeypatch.setattr(CudaTarget, "why_not_here", lambda self: "")
    tensorrt_stub.refuse.append("no such layer")
    with pytest.raises(PassError, match="CallTensorrt"):
        optimize(
            import_model(made(Classifier), (torch.randn(1, 3, 8, 8),)),
            "cuda:sm_80",
            libraries="tensorrt",
        )
