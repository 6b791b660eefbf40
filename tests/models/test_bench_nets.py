"""The benchmark's networks: sane values, the same at every load, the published sizes."""

from __future__ import annotations

import pytest
import torch

from burnish.models import bench_nets
from burnish.models.zoo import UnknownModel, arrays

# Parameters as published for each network.
SIZES = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenetv2": 3_504_872,
    "convnext-tiny": 28_589_128,
    "vit-s16": 22_050_664,
    "bert-base": 108_891_648,  # without the pooler
}
SMALL = ["mlp-b32", "dlrm-b256", "lstm", "mobilenetv2"]


@pytest.mark.parametrize("name", SMALL)
def test_values_are_of_order_one_and_the_same_at_every_load(name):
    outputs = []
    for _ in range(2):
        model, inputs = bench_nets.load(name)
        assert not model.training
        with torch.inference_mode():
            outputs.append(arrays(model(*inputs))[0])
    assert 0.01 < outputs[0].std() < 10
    assert (outputs[0] == outputs[1]).all()


@pytest.mark.parametrize("name", [n for n in SIZES if n != "bert-base"])
def test_networks_have_the_published_number_of_parameters(name):
    model, _ = bench_nets.load(name)
    assert sum(weight.numel() for weight in model.parameters()) == SIZES[name]


@pytest.mark.heavy
@pytest.mark.parametrize("name", [n for n in bench_nets.NETS if n not in SMALL])
def test_every_network_runs(name):
    model, inputs = bench_nets.load(name)
    with torch.inference_mode():
        found = arrays(model(*inputs))[0]
    assert 0.01 < found.std() < 10
    if name in SIZES:
        assert sum(weight.numel() for weight in model.parameters()) == SIZES[name]


def test_fourteen_models_and_four_at_batch_8():
    nets = bench_nets.NETS
    assert len({net.group for net in nets.values()}) == 14
    assert [name for name in nets if name.endswith("-b8")] == [
        *("resnet50-b8", "mobilenetv2-b8", "vit-s16-b8", "bert-base-b8")
    ]
    _, inputs = bench_nets.load("mobilenetv2-b8")
    assert inputs[0].shape == (8, 3, 224, 224)


def test_torch_s_own_chance_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    bench_nets.load("mlp-b32")
    assert torch.rand(1) == expected


def test_an_unknown_name_says_what_is_near():
    with pytest.raises(UnknownModel, match="no benchmark network 'resnet-50'; near it: resnet50"):
        bench_nets.load("resnet-50")
