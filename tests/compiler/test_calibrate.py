"""Calibration against torch hooks, on small networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm_ffi

from burnish.compiler.activations import observed
from burnish.compiler.calibrate import OPS, MinMax, calibrate
from burnish.compiler.errors import ConfigError
from relax_support import from_torch


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.head = torch.nn.Linear(4, 5)
        self.tied = torch.nn.Linear(5, 5, bias=False)

    def forward(self, x):
        x = torch.relu(self.conv(x)).mean((2, 3))
        x = self.tied(torch.tanh(self.tied(self.head(x))))
        return x, x @ x.T


SHAPE = (2, 3, 6, 6)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    model = Small().eval()
    return model, from_torch(model, torch.zeros(SHAPE))


def samples(count, seed=0):
    torch.manual_seed(seed)
    return [(torch.randn(SHAPE) * (k + 1),) for k in range(count)]


def hooked(model, data):
    """What each layer was given, sample by sample."""
    seen = {name: [] for name, _ in model.named_children()}
    handles = [
        module.register_forward_pre_hook(lambda _m, x, name=name: seen[name].append(x[0].detach()))
        for name, module in model.named_children()
    ]
    for sample in data:
        model(*sample)
    for handle in handles:
        handle.remove()
    return seen


def test_statistics_are_those_of_torch_hooks(small):
    model, mod = small
    data = samples(4)
    found = calibrate(mod, iter(data))
    seen = hooked(model, data)
    inputs = {
        "conv.weight": (torch.cat(seen["conv"]), 1),
        "head.weight": (torch.cat(seen["head"]), 1),
        "tied.weight": (torch.cat(seen["tied"][0::2]), 1),
        "tied.weight@1": (torch.cat(seen["tied"][1::2]), 1),
    }
    assert found.samples == 4
    assert set(inputs) < set(found.sites)
    for name, (value, axis) in inputs.items():
        statistics = found.statistics[name]
        np.testing.assert_allclose(statistics["range"]["min"], value.min(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(statistics["range"]["max"], value.max(), rtol=1e-5, atol=1e-6)
        channels = value.movedim(axis, -1).reshape(-1, value.shape[axis])
        power = channels.double().square().mean(0)
        np.testing.assert_allclose(statistics["power"]["mean_square"], power, rtol=1e-4)
        assert statistics["power"]["count"] == len(channels)


def test_activations_that_meet_activations_are_named_after_the_operator(small):
    found = calibrate(small[1], samples(1), {"range": MinMax})
    free = [name for name in found.sites if name.startswith("relax.matmul#")]
    assert len(free) == 2
    assert {found.sites[name].channel_axis for name in free} <= {0, 1}


def test_same_data_same_bits(small):
    one, two = (calibrate(small[1], samples(3)) for _ in range(2))
    assert one.data_hash == two.data_hash
    for name in one.statistics:
        for key in ("range", "power"):
            for part, value in one.statistics[name][key].items():
                np.testing.assert_array_equal(value, two.statistics[name][key][part])
    assert calibrate(small[1], samples(3, seed=1)).data_hash != one.data_hash


def test_any_build_and_any_observer(small):
    class Count:
        def __init__(self):
            self.calls = 0

        def update(self, value, channel_axis):
            self.calls += 1

        def result(self):
            return {"calls": np.asarray(self.calls)}

    def build(mod):
        return lambda inputs: (
            [np.zeros(1)] * 2 + [np.ones((1, 4, 1, 1))] * len(observed(small[1], OPS)[0])
        )

    found = calibrate(small[1], samples(2), {"calls": Count}, build=build)
    assert all(group["calls"]["calls"] == 2 for group in found.statistics.values())


def test_the_module_is_untouched(small):
    before = tvm_ffi.structural_hash(small[1])
    observed(small[1], OPS)
    assert tvm_ffi.structural_hash(small[1]) == before


def test_bad_data(small):
    mod = small[1]
    with pytest.raises(ConfigError, match="the calibration data are empty"):
        calibrate(mod, [])
    bad = torch.zeros(SHAPE)
    bad[0, 0, 0, 0] = float("nan")
    with pytest.raises(ConfigError, match="calibration sample 1 has NaN in input 0"):
        calibrate(mod, [*samples(1), (bad,)])
    with pytest.raises(
        ConfigError, match=r"sample 0 gives NaN or infinity before conv.weight \(relax.nn.conv2d"
    ):
        calibrate(mod, [(torch.full(SHAPE, float("inf")),)])
    with pytest.raises(ConfigError, match=r"nothing to calibrate: the module has none of relax.no"):
        calibrate(mod, samples(1), ops=("relax.nothing",))
