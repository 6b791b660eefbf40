"""Code generators of others as devices: registered, asked, called, and held to what they say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small_nets import Mlp, made
from tvm import relax

import burnish
from burnish.compiler.driver import import_model
from burnish.compiler.errors import BuildError, ConfigError, PassError
from burnish.compiler.parity import parity
from burnish.compiler.placed import seconds_of, supports
from burnish.passes import backends
from burnish.passes.backends import Code
from burnish.passes.graph import bindings, op_name
from burnish.passes.offload import OffloadRegions
from burnish.passes.params import get_params
from burnish.passes.place import nodes
from burnish.passes.regions import find_regions
from burnish.passes.support import DeviceSupport
from burnish.runtime.reading import read_artifact
from burnish.targets import hetero
from burnish.targets.choose import choose_target
from cuda_support import require_compiler

RELU = """
int {name}(DLTensor** tensors, int count) {{
  const float* x = (const float*)tensors[0]->data;
  float* y = (float*)tensors[1]->data;
  int64_t size = 1;
  for (int i = 0; i < tensors[1]->ndim; ++i) size *= tensors[1]->shape[i];
  for (int64_t i = 0; i < size; ++i) y[i] = x[i] > 0 ? x[i] : 0;
  return {code};
}}
"""


@dataclass
class Rectifier:
    """Takes relu; ``says`` are the operators that it says it takes."""

    says: tuple[str, ...] = ("relax.nn.relu",)
    source: str = RELU
    code: int = 0
    name: str = "rectifier"
    memory: str = "cpu"

    def why_not(self, call):
        return "" if op_name(call) in self.says else "it knows relu alone"

    def why_not_region(self, region):
        return "" if len(region.calls) > 1 else "one relu is not worth a call"

    def seconds(self, region):
        return 1e-6

    def compile(self, region, weights, name):
        return Code(name, source=self.source.format(name=name, code=self.code))


@pytest.fixture
def device():
    """Registers a device for one test."""
    before, known = dict(backends.registered), dict(hetero.external)
    yield lambda backend: burnish.register_device(backend)
    for table, old in ((backends.registered, before), (hetero.external, known)):
        table.clear()
        table.update(old)


def net():
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Tanh()).eval()


def test_a_device_of_ones_own_takes_what_it_can_and_the_rest_goes_on(device):
    device(Rectifier())
    model, x = net(), torch.randn(3, 6)
    compiled = burnish.compile(model, (x,), target="hetero:rectifier,cpu")
    assert parity(compiled(x), model(x)).rel <= 1e-6
    with pytest.raises(PassError, match=r"on rectifier.*: it knows relu alone"):
        burnish.compile(model, (x,), target="hetero:rectifier,cpu", placement={"tanh": "rectifier"})


@pytest.mark.parametrize(
    ("backend", "error", "message"),
    [
        (Rectifier(source="int {name}(void) {{ return {code} }}"), BuildError, "does not compile"),
        (Rectifier(("relax.nn.relu", "relax.tanh")), None, None),
    ],
)
def test_what_it_makes_is_compiled_when_the_model_is(device, backend, error, message):
    device(backend)
    model, x = net(), torch.randn(3, 6)
    if error is None:  # it says yes to tanh too, and computes relu for it: nobody can see that
        compiled = burnish.compile(model, (x,), target="hetero:rectifier,cpu")
        assert parity(compiled(x), model(x)).rel > 1e-3
        return
    with pytest.raises(error, match=message):
        burnish.compile(model, (x,), target="hetero:rectifier,cpu")


def test_a_call_that_fails_is_an_error(device):
    device(Rectifier(code=7))
    x = torch.randn(3, 6)
    compiled = burnish.compile(net(), (x,), target="hetero:rectifier,cpu")
    with pytest.raises(RuntimeError, match="rectifier_region1_0 failed"):
        compiled(x)


def test_placement_by_cost_asks_it_what_a_region_takes(device):
    device(Rectifier(says=("relax.nn.relu", "relax.tanh")))
    target = choose_target("hetero:rectifier,cublas,cpu")
    mod = import_model(net(), (torch.randn(3, 6),)).mod
    (region,) = find_regions(mod["main"], lambda call: not Rectifier().why_not(call))
    assert [seconds_of(place, region) for place in target.places[:2]] == [1e-6, None]


def test_regions_that_are_not_worth_it_stay_unless_placed():
    mod = import_model(net(), (torch.randn(3, 6),)).mod
    assert OffloadRegions(Rectifier())(mod).same_as(mod)
    with pytest.raises(ValueError, match=r"said that it computes .*relax.matmul.*did not take it"):
        OffloadRegions(Rectifier(), whole=True)(mod)


def test_arrays_and_words_are_kept_with_the_model():
    @dataclass
    class Engine(Rectifier):
        def compile(self, region, weights, name):
            return Code("run_it", stored=(np.arange(3),), said=("key", 2), holds_weights=True)

    mod = import_model(net(), (torch.randn(3, 6),)).mod
    new = OffloadRegions(Engine(says=("relax.nn.relu", "relax.tanh")))(mod)
    assert get_params(new)["rectifier.0"].numpy().tolist() == [0, 1, 2]
    calls = [b.value for b in bindings(new["main"]) if op_name(b.value) == "relax.call_dps_packed"]
    assert [arg.value for arg in calls[0].args[1].fields[1:3]] == ["key", 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "cpu"}, "is there already"),
        ({"name": "Chip 1"}, "lower-case letters and digits"),
        ({"memory": "moon"}, "device 'moon'"),
        ({"compile": None}, "has no compile"),
    ],
)
def test_a_device_that_cannot_be_registered(device, change, message):
    backend = Rectifier()
    for name, value in change.items():
        setattr(backend, name, value)
    with pytest.raises(ConfigError, match=message):
        device(backend)


def test_a_device_that_is_not_registered_here():
    with pytest.raises(burnish.BurnishError, match="unknown target"):
        burnish.compile(net(), (torch.randn(3, 6),), target="hetero:rectifier,cpu")


def test_cublas_is_a_device_for_products(tmp_path):
    require_compiler()
    model, x = made(Mlp), torch.randn(4, 20)
    compiled = burnish.compile(model, (x,), target="hetero:cublas,cuda:sm_90:0,cpu")
    assert b"burnish_cublas_matmul" in compiled.library.read_bytes()
    path = compiled.save(tmp_path / "net.burnish")
    assert "cublas" in read_artifact(path).manifest.libraries
    row = next(row for row in compiled.report.rows if row.name == "PartitionGraph")
    assert {one["device"] for one in row.details["regions"]} >= {"cublas"}
    able = supports(choose_target("hetero:cublas,cpu"))["cublas"]
    said = {
        one.operator: able.why_not(one.value) for one in nodes(import_model(net(), (x[:, :6],)).mod)
    }
    assert said["relax.matmul"] == ""
    assert said["relax.tanh"] == "relax.tanh is no product"


def test_reasons_of_devices():
    class Net(torch.nn.Module):
        def forward(self, x):
            y = x.double() + 1
            return y.half()

    opencl, mali, cpu = (
        DeviceSupport(choose_target(f"hetero:{name}").places[0])
        for name in ("opencl:0", "opencl:mali:0", "cpu")
    )
    found = {}
    for node in nodes(import_model(Net().eval(), (torch.randn(3, 4),)).mod):
        found[node.operator] = [one.why_not(node.value) for one in (opencl, mali, cpu)]
        assert found[node.operator][2] == ""
    assert found["relax.add"][:2] == ["float64 is not of every OpenCL device"] * 2
    call = relax.op.nonzero(relax.Var("x", relax.TensorType((3, 4), "float32")))
    assert opencl.why_not(relax.BlockBuilder().normalize(call)).endswith("on the host")
