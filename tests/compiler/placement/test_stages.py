"""Stages against every cut there is, and the simulation against formulas."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.compiler.placement.errors import (
    MemoryLimitError,
    NotApplicableError,
    PlacementError,
)
from burnish.compiler.placement.micro_batches import choose_micro_batches
from burnish.compiler.placement.problem import Device, Edge, Input, Node, Output, Problem
from burnish.compiler.placement.simulate import Hop, hops_of, scaling, simulate
from burnish.compiler.placement.stages import cut_stages, on_equal_devices
from burnish.compiler.placement.synthetic import Shape, synthetic
from burnish.compiler.placement.units import units

SHAPES: tuple[Shape, ...] = ("chain", "branches", "general")


def by_hand(problem: Problem, devices: list[str], points: list[int], overlap: bool) -> list[float]:
    """Seconds of each stage, straight from the rules; infinite where it may not be one."""
    allowed = [set()] * len(problem.nodes)
    for unit in units(problem):
        for member in unit.members:
            allowed[member] = set(unit.devices)
    found = []
    for at, (start, end) in enumerate(pairwise(points)):
        device, run = devices[at], range(start, end)
        split = any(
            0 < sum(member in run for member in unit.members) < len(unit.members)
            for unit in units(problem)
        )
        if split or any(device not in allowed[p] for p in run):
            found.append(math.inf)
            continue
        compute = sum(problem.nodes[p].seconds[device] for p in run)
        take, handed = 0.0, 0
        for value in problem.values:
            targets = set(value.targets)
            if value.source is None:
                if targets and min(targets) in run:
                    take += problem.move_seconds(problem.host, device, value.bytes)
                elif targets and min(targets) < start <= max(targets):
                    handed += value.bytes
            elif value.source < start and targets and max(targets) >= start:
                handed += value.bytes
            if value.to_host and value.source in run:
                take += problem.move_seconds(device, problem.host, value.bytes)
        if handed:
            take += problem.move_seconds(devices[at - 1], device, handed)
        found.append(max(compute, take) if overlap else compute + take)
    return found


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 3),
    overlap=st.booleans(),
    groups=st.booleans(),
)
def test_the_slowest_stage_is_the_least_of_all_cuts(
    seed: int, count: int, overlap: bool, groups: bool
) -> None:
    problem = synthetic(seed, nodes=7, devices=3, shape=SHAPES[seed % 3], groups=groups)
    devices = ["dev:0", "cpu", "dev:1"][:count]
    best = math.inf
    for inner in itertools.combinations(range(1, 7), count - 1):
        best = min(best, max(by_hand(problem, devices, [0, *inner, 7], overlap)))
    if math.isinf(best):
        with pytest.raises(PlacementError, match="no cut into"):
            cut_stages(problem, devices, overlap=overlap)
        return
    cut = cut_stages(problem, devices, overlap=overlap)
    assert cut.slowest == pytest.approx(best)
    names = [name for stage in cut.stages for name in stage.nodes]
    assert names == [node.name for node in problem.nodes]
    points = [0, *itertools.accumulate(len(stage.nodes) for stage in cut.stages)]
    assert [stage.seconds for stage in cut.stages] == pytest.approx(
        by_hand(problem, devices, points, overlap)
    )


def line(limit: int | None = None) -> Problem:
    """Four nodes of 4, 3, 2 and 1 s, with weights of as many kB, and values of 100 B."""
    nodes = tuple(
        Node(f"n{at}", "op", {"cpu": float(4 - at)}, weight_bytes=1000 * (4 - at), output_bytes=100)
        for at in range(4)
    )
    edges = tuple(Edge(f"n{at}", f"n{at + 1}", 100) for at in range(3))
    problem = Problem(
        nodes,
        (Device("cpu"),),
        edges,
        inputs=(Input("x", 100, ("n0",)),),
        outputs=(Output("n3", 100),),
    )
    return on_equal_devices(
        problem, "cpu", 2, latency_seconds=0.5, bytes_per_second=200.0, memory_bytes=limit
    )


def test_a_cut_balances_and_counts_the_bubble() -> None:
    cut = cut_stages(line(), ["cpu@0", "cpu@1"])
    # 4 | 3 + 2 + 1 with a second to take in and one to give back is 8; 4 + 3 | 2 + 1 is 7.
    assert [stage.nodes for stage in cut.stages] == [("n0", "n1"), ("n2", "n3")]
    assert [stage.seconds for stage in cut.stages] == [7, 5]
    assert cut.slowest == 7
    assert cut.batch_seconds(1) == 12
    assert cut.batch_seconds(4) == 12 + 3 * 7
    assert cut.bubble(4) == pytest.approx(1 - 4 * 12 / (2 * 33))
    assert cut.bubble(100) < cut.bubble(4)
    assert cut.assignment["n2"] == "cpu@1"


def test_memory_limits_move_the_cut_or_tell_the_smallest_excess() -> None:
    # A stage needs its weights, two values at a time, the input, and what waits before it.
    free = cut_stages(line(), ["cpu@0", "cpu@1"])
    assert [stage.memory_bytes for stage in free.stages] == [7000 + 400, 3000 + 300]
    tight = cut_stages(line(6400), ["cpu@0", "cpu@1"])
    assert [stage.nodes for stage in tight.stages] == [("n0",), ("n1", "n2", "n3")]
    with pytest.raises(MemoryLimitError) as caught:
        cut_stages(line(6000), ["cpu@0", "cpu@1"])
    assert caught.value.excess == {"cpu@1": 300}
    assert "the smallest excess is 300 bytes" in str(caught.value)


def test_every_order_of_devices_can_be_tried() -> None:
    problem = synthetic(8, nodes=8, devices=3, shape="chain")
    orders = []
    for order in itertools.permutations(["cpu", "dev:0", "dev:1"]):
        try:
            orders.append(cut_stages(problem, order).slowest)
        except PlacementError:
            continue
    assert cut_stages(problem, ["cpu", "dev:0", "dev:1"], any_order=True).slowest == min(orders)
    many = on_equal_devices(problem, "cpu", 7, latency_seconds=0.0, bytes_per_second=1e9)
    with pytest.raises(NotApplicableError, match="up to 6 devices, here are 7"):
        cut_stages(many, [device.name for device in many.devices], any_order=True)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (["cpu@0", "cup"], "unknown device 'cup'"),
        ([], "stages need devices"),
        (["cpu@0", "cpu@0"], "each once"),
    ],
)
def test_devices_that_cannot_be_stages(devices: list[str], message: str) -> None:
    with pytest.raises(PlacementError, match=message):
        cut_stages(line(), devices)


def test_more_stages_than_operators_are_refused() -> None:
    problem = on_equal_devices(line(), "cpu@0", 5, latency_seconds=0.0, bytes_per_second=1.0)
    with pytest.raises(PlacementError, match="5 stages of a model of 4 operators"):
        cut_stages(problem, [device.name for device in problem.devices])


def sized(problem: Problem, size: int) -> Problem:
    """A micro-batch of ``size`` rows: a fixed second, and one for each row."""
    nodes = [
        replace(node, seconds={d: s / 4 * size + 1 for d, s in node.seconds.items()})
        for node in problem.nodes
    ]
    return replace(problem, nodes=tuple(nodes))


def test_the_micro_batch_size_is_the_one_that_is_done_first() -> None:
    problems = {size: sized(line(), size) for size in (1, 2, 4, 8)}
    best, options = choose_micro_batches(problems, 8, ["cpu@0", "cpu@1"])
    assert [option.micro_batches for option in options] == [8, 4, 2, 1]
    for option in options:
        expected = option.cut.batch_seconds(option.micro_batches)
        assert option.seconds == expected >= best.seconds
    assert best.seconds < max(option.seconds for option in options)
    assert [o.bubble for o in options] == sorted(o.bubble for o in options)
    with pytest.raises(PlacementError, match="at least one micro-batch size"):
        choose_micro_batches({}, 8, ["cpu@0"])
    with pytest.raises(MemoryLimitError):
        choose_micro_batches({1: line(6000)}, 8, ["cpu@0", "cpu@1"])


@given(
    seconds=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    micro_batches=st.integers(1, 12),
    depth=st.integers(1, 3),
)
def test_without_transfers_the_simulation_is_the_formula(
    seconds: list[int], micro_batches: int, depth: int
) -> None:
    hops = [Hop(f"d{at}", float(took)) for at, took in enumerate(seconds)]
    found = simulate(hops, micro_batches, depth=depth)
    assert found.seconds == sum(seconds) + (micro_batches - 1) * max(seconds)
    work = micro_batches * sum(seconds) / (found.seconds * len(seconds))
    assert found.bubble == pytest.approx(1 - work)


@given(
    stages=st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 9), st.sampled_from(["a", "b", "bus"])),
        min_size=1,
        max_size=8,
    ),
    micro_batches=st.integers(1, 20),
    depth=st.integers(1, 3),
)
def test_a_simulation_keeps_its_own_rules(
    stages: list[tuple[int, int, str]], micro_batches: int, depth: int
) -> None:
    hops = [Hop(f"d{at}", c, link, m) for at, (c, m, link) in enumerate(stages)]
    found = simulate(hops, micro_batches, depth=depth)
    lanes: dict[str, list[tuple[float, float]]] = {}
    for step in found.steps:
        lanes.setdefault(step.where, []).append((step.start, step.end))
    for spans in lanes.values():  # one thing at a time
        spans.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
    for at, hop in enumerate(hops):
        runs = [s for s in found.steps if s.kind == "compute" and s.where == hop.device]
        assert [s.batch for s in runs] == list(range(micro_batches))  # in order, each once
        moves = {
            s.batch: s for s in found.steps if s.kind == "transfer" and s.label == f"stage {at}"
        }
        assert len(moves) == (micro_batches if hop.move_seconds else 0)
        for run in runs:
            came = moves.get(run.batch, run)
            assert run.start >= came.end or came is run
            if run.batch >= depth:  # room: an earlier one has left
                assert came.start >= runs[run.batch - depth].end
    busiest = max(sum(b - a for a, b in spans) for spans in lanes.values())
    assert found.seconds >= busiest
    assert sum(b - a for a, b in lanes[found.limit]) == busiest


def test_a_shared_link_is_the_limit_that_the_slowest_stage_does_not_show() -> None:
    apart = [Hop(f"d{at}", 1.0, f"link {at}", 0.5) for at in range(8)]
    together = [replace(hop, link="bus") for hop in apart]
    assert simulate(apart, 100).pace == pytest.approx(1.0)
    shared = simulate(together, 100)
    assert shared.seconds >= 100 * 8 * 0.5
    assert shared.pace > 3.5  # but for the end of the run, where fewer stages use it
    assert shared.limit == "bus"


def test_scaling_to_64_devices_has_bubble_and_link_limits() -> None:
    problem = synthetic(1, nodes=200, devices=1, shape="chain")
    slow = {"latency_seconds": 1e-5, "bytes_per_second": 1e10}
    rows = scaling(problem, "cpu", [1, 8, 64], micro_batches=64, **slow)
    assert [row.devices for row in rows] == [1, 8, 64]
    assert rows[0].times == pytest.approx(1.0)
    assert 4 < rows[1].times < 8
    assert rows[1].times < rows[2].times < 64
    assert rows[2].simulation.bubble > rows[1].simulation.bubble
    bus = scaling(problem, "cpu", [64], micro_batches=64, shared_link="network", **slow)
    assert bus[0].times < rows[2].times
    assert bus[0].simulation.limit == "network"


def test_a_cut_is_simulated_as_it_is_predicted() -> None:
    problem = line()
    cut = cut_stages(problem, ["cpu@0", "cpu@1"], overlap=True)
    found = simulate(hops_of(problem, cut), 50)
    assert found.pace == pytest.approx(cut.slowest)


@pytest.mark.parametrize(
    ("hops", "given", "message"),
    [
        ([], {}, "1 to 64 stages, got 0"),
        ([Hop(f"d{at}", 1.0) for at in range(65)], {}, "1 to 64 stages, got 65"),
        ([Hop("a", 1.0), Hop("a", 1.0)], {}, "a device of its own"),
        ([Hop("a", 1.0, "a", 1.0)], {}, "name of a device and of a link"),
        ([Hop("a", 1.0)], {"depth": 0}, "1 or more, got 3 and 0"),
    ],
)
def test_simulations_that_cannot_be(hops: list[Hop], given: dict[str, int], message: str) -> None:
    with pytest.raises(PlacementError, match=message):
        simulate(hops, 3, **given)
