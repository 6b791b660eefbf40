"""Smaller weights in a model over several devices: pruned, quantized, in two bytes."""

from __future__ import annotations

import pytest
import torch
from small_nets import Mlp, made

import burnish
from burnish.compiler.errors import ConfigError, TargetError
from burnish.compiler.parity import parity
from burnish.compiler.precision import in_precision
from burnish.targets.choose import choose_target
from opencl_support import require_device


def test_they_are_what_they_are_on_one_device():
    """Eight bits of a product on OpenCL, two bytes of one on the CPU, both pruned."""
    require_device()
    net, x = made(Mlp), torch.randn(6, 20)
    settings = {"quantize": {"include": ("0.weight",)}, "prune": 0.5, "precision": "fp16"}
    settings |= {"do_no_harm": False, "cache": False}
    one = burnish.compile(net, (x,), **settings)
    two = burnish.compile(
        net, (x,), target="hetero:opencl:0,cpu", placement={"2.*": "cpu"}, **settings
    )
    for _ in range(2):
        x = torch.randn(6, 20)
        assert parity(two(x), one(x)).rel <= 1e-5
    kinds = {name: str(value.dtype) for name, value in two.params.items()}
    assert kinds["0.weight"] in ("int8", "uint8")
    assert kinds["2.weight"] == "float16"
    assert next(row for row in two.report.rows if row.name == "PruneWeights").details


def test_each_device_computes_in_a_precision_of_its_kind():
    net, x = made(Mlp), torch.randn(6, 20)
    for target, dtypes in (
        ("hetero:cpu,cpu:1", {"float16"}),
        ("hetero:cpu,opencl:0", {"float16", "float32"}),
    ):
        second = target.rpartition(",")[2]
        model = burnish.compile(
            net, (x,), target=target, placement={"2.*": second}, precision="fp16", cache=False,
            do_no_harm=False,
        )  # fmt: skip
        assert parity(model(x), net(x)).rel <= 5e-3
        weights = {str(v.dtype) for name, v in model.params.items() if name.endswith("weight")}
        assert weights == dtypes
    both = in_precision("tf32", choose_target("hetero:cuda:sm_90:0,cpu"))
    assert [getattr(place.target, "tf32", None) for place in both.places] == [True, None]


@pytest.mark.parametrize(
    ("target", "settings", "error", "message"),
    [
        ("hetero:opencl:0", {"precision": "bf16"}, ConfigError, "is for a CPU, and the devices"),
        ("hetero:cpu", {"precision": "tf32"}, ConfigError, "is for a GPU of CUDA, and the devices"),
        ("hetero:cpu,cpu:1", {"tune": 2}, TargetError, "tuning is for CPUs; .*leave tune out"),
    ],
)
def test_what_no_device_has_is_refused(target, settings, error, message):
    with pytest.raises(error, match=message):
        burnish.compile(made(Mlp), (torch.randn(6, 20),), target=target, **settings)
