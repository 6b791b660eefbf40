"""``libraries`` of a configuration: what it may say, how it is measured, and a model by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from nvidia_support import build_stub
from small_nets import made
from tvm import relax

import burnish
from burnish.compiler.config import CompileConfig
from burnish.compiler.driver import import_model, optimize
from burnish.compiler.errors import ConfigError, TargetError
from burnish.compiler.library_choice import alone, operations, settled
from burnish.passes.call_library import CallLibrary
from burnish.targets.cuda.blas import Product
from burnish.targets.cuda.dnn import Convolution
from burnish.targets.cuda.target import CudaTarget, parse_cuda
from cuda_support import require_compiler


class Net(torch.nn.Module):
    """Nothing but products, biases and activations that the library takes."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = torch.nn.Linear(16, 24)
        self.last = torch.nn.Linear(24, 8)

    def forward(self, x):
        return self.last(torch.relu(self.wide(x)))


def test_a_whole_model_by_the_library(tmp_path, monkeypatch):
    require_compiler()
    stub = build_stub(tmp_path)
    monkeypatch.setenv("BURNISH_CUBLASLT", str(stub))
    monkeypatch.setenv("BURNISH_CUDA_DRIVER", str(stub))
    net, x = made(Net), torch.randn(5, 16)
    compiled = burnish.compile(net, (x,), target="cuda:sm_80", libraries="cublas")
    # No kernel of the GPU is left in it, so that its program runs on the CPU too.
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(compiled.library)), tvm.cpu())
    weights = [tvm.runtime.tensor(value.numpy()) for value in compiled.params.values()]
    (found,) = machine["main"](tvm.runtime.tensor(x.numpy()), weights)
    np.testing.assert_allclose(found.numpy(), net(x).detach().numpy(), rtol=1e-5, atol=1e-6)


class Convolutions(torch.nn.Module):
    """What cuDNN takes, between transposes of ours: one of ours alone is not for the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.two = torch.nn.Conv2d(6, 4, (1, 2), groups=2, bias=False)
        self.uneven = torch.nn.Conv2d(4, 4, 2, padding="same")

    def forward(self, x):
        return self.uneven(self.two(torch.relu(self.one(x))))


def test_convolutions_go_to_cudnn_where_it_takes_them():
    inputs = (torch.randn(2, 3, 9, 8),)
    optimized = optimize(import_model(made(Convolutions), inputs), "cuda:sm_80", libraries="cudnn")
    shown = optimized.show()
    assert shown.count('call_dps_packed("burnish_cudnn_conv2d"') == 2
    config = CompileConfig(libraries="auto")
    assert set(operations(optimized.graph, optimized.target, config)) == {
        "cudnn:float32 2x9x8x3 6x3x3x3 p1x1 s2x2 d1x1 g1",
        "cudnn:float32 2x9x8x3 6x3x3x3 p1x1 s2x2 d1x1 g1+bias",
        "cudnn:float32 2x9x8x3 6x3x3x3 p1x1 s2x2 d1x1 g1+bias+relu",
        "cudnn:float32 2x5x4x6 4x1x2x3 p0x0 s1x1 d1x1 g2",
    }


def test_without_it_the_library_has_no_such_function():
    require_compiler()
    compiled = burnish.compile(made(Net), (torch.randn(5, 16),), target="cuda:sm_80")
    assert b"burnish_cublas_matmul" not in compiled.library.read_bytes()


def test_auto_lists_what_measured_faster(monkeypatch):
    monkeypatch.setattr(CudaTarget, "why_not_here", lambda self: "")
    asked = []

    def timed(product, target):
        asked.append(product.key)
        return 1.0, 0.5 if product.activation else 0.99

    optimized = optimize(import_model(made(Net), (torch.randn(5, 16),)), "cuda:sm_80")
    config = settled(optimized.graph, optimized.target, CompileConfig(libraries="auto"), timed)
    assert config.libraries == ("cublas:float32 5x24x16 nt+bias+relu",)
    assert {f"cublas:{key}" for key in asked} == set(
        operations(optimized.graph, optimized.target, config)
    )
    again = CompileConfig.from_toml_text(config.to_toml())
    assert again.libraries == config.libraries
    monkeypatch.setattr("burnish.compiler.library_choice.gpu_times", timed)
    asked.clear()
    measured = optimize(
        import_model(made(Net), (torch.randn(5, 16),)), "cuda:sm_80", libraries="auto"
    )
    assert asked
    assert measured.config.libraries == config.libraries
    asked.clear()
    given = optimize(
        import_model(made(Net), (torch.randn(5, 16),)), "cuda:sm_80", config=measured.config
    )
    assert not asked
    assert given.show() == measured.show()
    assert given.show().count("call_dps_packed") == 1


@pytest.mark.parametrize(
    "product",
    [
        Product("float16", 3, 5, 7, (2,), (), b_turned=True, bias=True, activation="gelu_tanh"),
        Product("float32", 3, 5, 7, (2,), (2,), a_turned=True),
        Convolution("float16", (1, 9, 8, 6), (6, 3, 1, 2), (1, 0), (2, 1), (1, 2), 3, True, "relu"),
        Convolution("float32", (2, 4, 4, 3), (5, 2, 2, 3)),
    ],
)
def test_a_product_alone_is_the_product(product):
    found = []
    CallLibrary(lambda one: found.append(one) or False)(alone(product))
    assert found[-1] == product


@pytest.mark.parametrize(
    ("libraries", "message"),
    [
        (
            "mkl",
            "'mkl' is unknown; known: cublas, cudnn, cublas:OPERATION, tensorrt, and auto alone",
        ),
        (["auto", "cublas"], "'auto' is unknown"),
        ("cublas:", "'' is no operation of cublas"),
        ("cublas:float32 3x4", "'float32 3x4' is no operation of cublas: write it as"),
        (3, "libraries must be a list of names, got 3"),
    ],
)
def test_names_that_are_not_known(libraries, message):
    with pytest.raises(ConfigError, match=message):
        CompileConfig(libraries=libraries)


def test_other_targets_have_no_library():
    with pytest.raises(ConfigError, match=r"is for CUDA; the target 'cpu' has no library"):
        burnish.compile(made(Net), (torch.randn(5, 16),), libraries="cublas")


def test_nothing_is_measured_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(CudaTarget, "why_not_here", lambda self: "there is none")
    with pytest.raises(TargetError, match=r'measures on this machine, but there is none.*"cublas"'):
        burnish.compile(
            made(Net), (torch.randn(5, 16),), target=parse_cuda("cuda"), libraries="auto"
        )
