"""Memory limits of devices, as a configuration has them."""

from __future__ import annotations

import pytest
import torch

import burnish
from burnish.compiler.errors import ConfigError


@pytest.mark.parametrize("memory", [{"cpu": "much"}, {"cpu": -1}, {"cpu": True}, "2 GB"])
def test_memory_that_is_no_size_is_refused(memory):
    with pytest.raises(ConfigError, match="memory"):
        burnish.CompileConfig(memory=memory)


@pytest.mark.parametrize("target", ["cpu", "hetero:cpu,cpu:1"])
def test_memory_of_a_device_that_is_not_there_is_refused(target):
    with pytest.raises(ConfigError, match="'gpu', which is no device of the target"):
        burnish.compile(torch.nn.ReLU(), (torch.ones(1),), target=target, memory={"gpu": 1})


def test_sizes_are_read():
    found = burnish.CompileConfig(memory={"a": "2 GB", "b": "1.5MiB", "c": 7, "d": "10 kB"}).memory
    assert found == {"a": 2_000_000_000, "b": 1_572_864, "c": 7, "d": 10_000}
