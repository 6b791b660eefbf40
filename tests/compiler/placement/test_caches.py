"""A decoder that takes its cache and gives it back: who computes with it holds it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import burnish
from burnish.compiler.placement.choose import choose
from burnish.compiler.placement.costs import CostModel, OperatorTime
from burnish.compiler.placement.errors import MemoryLimitError
from burnish.compiler.placement.model_problem import ModelProblem, model_problem
from burnish.compiler.placement.predict import predict
from burnish.compiler.placement.problem import Link
from burnish.targets.choose import choose_target

LAYERS, HEADS, SIZE = 2, 2, 8
WIDTH = HEADS * SIZE


class Decoder(torch.nn.Module):
    """One token and the keys and values so far of each layer -> the next, and the longer ones."""

    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.ModuleList(torch.nn.Linear(WIDTH, 3 * WIDTH) for _ in range(LAYERS))

    def forward(self, x, keys, values):
        kept = []
        for layer, k, v in zip(self.project, keys, values, strict=True):
            q, new_k, new_v = layer(x).view(1, 1, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4)
            k, v = torch.cat([k, new_k], 2), torch.cat([v, new_v], 2)
            kept += [k, v]
            weights = torch.softmax(q @ k.transpose(2, 3), -1)
            x = x + (weights @ v).transpose(1, 2).reshape(1, 1, WIDTH)
        return x, kept


class Equal(CostModel):
    """All operators take a millisecond: memory does not depend on times."""

    def __init__(self) -> None:
        pass

    def measure(self, operators: Any, target: Any, **_: Any) -> int:
        return 0

    def times(self, operators: Any, target: Any) -> Any:
        return {one.signature: OperatorTime(1e-3, 1e-3, 0.1) for one in operators}, []


def links(_: Any) -> tuple[Link, ...]:
    return (Link("cpu", "opencl:0", 1e-6, 1e10), Link("opencl:0", "cpu", 1e-6, 1e10))


def problem(past: int, **memory: int) -> ModelProblem:
    cache = [torch.zeros(1, HEADS, past, SIZE) for _ in range(LAYERS)]
    imported = burnish.import_model(Decoder().eval(), (torch.zeros(1, 1, WIDTH), cache, cache))
    config = burnish.CompileConfig(
        placement={"*": "auto"}, memory={name.replace("_", ":"): n for name, n in memory.items()}
    )
    target = choose_target("hetero:cpu,opencl:0")
    return model_problem(imported.mod, target, config, Equal(), links=links)


def cache_bytes(past: int) -> int:
    return 2 * LAYERS * HEADS * SIZE * past * 4


def held(past: int) -> dict[str, int]:
    found = problem(past).problem
    everything = {node.name: "opencl:0" for node in found.nodes}
    return dict(predict(found, everything).memory)


def test_a_cache_counts_where_it_lies_and_where_it_is_used():
    """The host holds what comes and what goes; the device its copy, and what it makes of it."""
    more, less = held(96), held(32)
    grown = cache_bytes(96) - cache_bytes(32)
    assert more["cpu"] - less["cpu"] == 2 * grown
    # What is made of it is there more than once: keys are turned for their product.
    assert 2 * grown <= more["opencl:0"] - less["opencl:0"] <= 3 * grown


def test_a_limit_that_weights_alone_meet_is_broken_by_the_cache():
    weights = LAYERS * (3 * WIDTH * WIDTH + 3 * WIDTH) * 4
    limit = {"opencl_0": weights + 2 * cache_bytes(8), "cpu": 4 * cache_bytes(128)}
    best = choose(problem(8, **limit).problem).best
    assert best.prediction.fits
    large = problem(128, **limit)
    assert not any(
        row.placement and set(row.placement.assignment.values()) == {"opencl:0"}
        for row in choose(large.problem).rows
    )
    with pytest.raises(MemoryLimitError, match="the smallest excess is"):
        choose(problem(128, opencl_0=weights, cpu=cache_bytes(128)).problem)
