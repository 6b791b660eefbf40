"""``libraries`` of a configuration: what it may say, how it is measured, and a model by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from cublas_support import build_stub
from small_nets import made
from tvm import relax

import burnish
from burnish.compiler.config import CompileConfig
from burnish.compiler.driver import import_model, optimize
from burnish.compiler.errors import ConfigError, TargetError
from burnish.compiler.library_choice import product_module, products, settled
from burnish.passes.call_blas import CallBlas
from burnish.targets.cuda.blas import Product
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
    assert sorted(asked) == sorted(products(optimized.graph, optimized.target, config))
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
    ],
)
def test_a_product_alone_is_the_product(product):
    found = []
    CallBlas(lambda one: found.append(one) or False)(product_module(product))
    assert found[-1] == product


@pytest.mark.parametrize(
    ("libraries", "message"),
    [
        ("cudnn", "'cudnn' is unknown; known: cublas, cublas:PRODUCT, tensorrt, and auto alone"),
        (["auto", "cublas"], "'auto' is unknown"),
        ("cublas:", "'cublas:' is unknown"),
        ("cublas:float32 3x4", "'float32 3x4' is no product: write it as"),
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
