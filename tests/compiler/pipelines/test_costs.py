"""Counted costs, the number of micro-batches that they choose, and the stages."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from small_nets import Block, made

import burnish
from burnish.compiler.bench.peaks import Peaks
from burnish.compiler.pipelines import costs
from burnish.compiler.pipelines.core_sets import CoreSet
from burnish.compiler.pipelines.costs import (
    at_share,
    chosen_number,
    stage_names,
    stage_problem,
    stages_of,
)
from burnish.compiler.pipelines.make import cleaned
from burnish.compiler.placement.problem import Device, Edge, Link, Node, Problem
from burnish.passes.cut_stages import cut_stages, in_order_of_stages
from burnish.passes.params import get_params

DEVICES = (CoreSet("cpu@0", (0,)), CoreSet("cpu@1", (1,)))


def chain(seconds: float, weights: int, latency: float) -> Problem:
    """Eight equal operators on both devices; a link reads weights too, at 10 GB/s."""
    names = [f"n{at}" for at in range(8)]
    spent = {device.name: seconds for device in DEVICES}
    nodes = tuple(
        Node(name, "dense", spent, weight_bytes=weights, output_bytes=1000) for name in names
    )
    edges = tuple(Edge(a, b, 1000) for a, b in pairwise(names))
    links = [Link(a, b, latency, 1e10) for a, b in (("cpu@0", "cpu@1"), ("cpu@1", "cpu@0"))]
    return Problem(nodes, (Device("cpu@0"), Device("cpu@1")), edges, tuple(links), host="cpu@0")


def test_bubble_against_what_a_micro_batch_costs_by_itself() -> None:
    free = chosen_number(chain(1e-2, 0, 0.0), 16, DEVICES)
    assert free.micro_batches == 16
    assert free.why.startswith("expected milliseconds a batch by their number: 1: 80, 2: 60")
    bound = chosen_number(chain(1e-2, 100_000_000, 0.0), 16, DEVICES)
    assert bound.micro_batches == 1
    slow = chosen_number(chain(1e-4, 0, 1e-4), 16, DEVICES)
    assert 1 < slow.micro_batches < 16
    assert chosen_number(chain(1e-2, 0, 0.0), 7, DEVICES).micro_batches == 7


def test_a_share_of_the_rows_reads_all_the_weights() -> None:
    part = at_share(chain(1e-2, 50_000_000, 0.0), 0.25)
    assert part.nodes[0].seconds["cpu@0"] == pytest.approx(5e-3, rel=1e-3)
    assert (part.nodes[0].output_bytes, part.edges[0].bytes) == (250, 250)
    assert at_share(chain(1e-2, 0, 0.0), 0.25).nodes[0].seconds["cpu@0"] == pytest.approx(2.5e-3)


def test_a_block_in_two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "known_peaks", lambda n: Peaks(n, 200.0, None, None, 40.0))
    inputs = (torch.zeros(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64))
    graph = cleaned(burnish.import_model(made(Block), inputs))
    problem = stage_problem(graph, DEVICES, costs="counted", handoff_s=0.0)
    assert all(set(node.seconds) == {"cpu@0", "cpu@1"} for node in problem.nodes)
    cut, stages = stages_of(graph, problem, DEVICES)
    whole = sum(node.seconds["cpu@0"] for node in problem.nodes)
    assert [stage.device for stage in cut.stages] == ["cpu@0", "cpu@1"]
    assert sum(stage.compute_seconds for stage in cut.stages) == pytest.approx(whole)
    assert cut.slowest < 0.8 * whole
    assert set(stages.values()) == {0, 1}


def test_names_of_devices_that_are_alike() -> None:
    devices = [CoreSet("cpu"), CoreSet("cpu@1", (1,)), CoreSet("cpu"), CoreSet("cpu")]
    assert stage_names(devices) == ("cpu", "cpu@1", "cpu#2", "cpu#3")


class Shared(torch.nn.Module):
    """Two layers that read the same slice of a table, which no input decides."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(9, 16))
        self.one, self.two = torch.nn.Linear(16, 16), torch.nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = self.table[:4].unsqueeze(0)
        return self.two(torch.relu(self.one(x * turned))) * turned


def test_what_weights_decide_is_in_every_stage_that_reads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(costs, "known_peaks", lambda n: Peaks(n, 200.0, None, None, 40.0))
    graph = cleaned(burnish.import_model(Shared().eval(), (torch.zeros(2, 4, 16),)))
    problem = stage_problem(graph, DEVICES, costs="counted", handoff_s=0.0)
    _, stages = stages_of(graph, problem, DEVICES)
    ordered, points = in_order_of_stages(graph, stages)
    first, second = cut_stages(ordered, points).stages
    assert (len(first.takes), len(second.takes)) == (1, 1)
    for stage in (first, second):
        assert "table" in get_params(stage.mod)
