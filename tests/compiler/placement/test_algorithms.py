"""Each algorithm against every placement there is, on generated problems."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.compiler.placement import chain, cut, exhaustive, greedy, ilp, learned
from burnish.compiler.placement.choose import choose
from burnish.compiler.placement.errors import (
    MemoryLimitError,
    NoDeviceError,
    NotApplicableError,
    PlacementError,
)
from burnish.compiler.placement.predict import Placement, predict
from burnish.compiler.placement.problem import Device, Edge, Node, Problem, both_ways
from burnish.compiler.placement.synthetic import Shape, synthetic
from burnish.compiler.placement.tables import Tables
from burnish.compiler.placement.units import check_placement

SHAPES: tuple[Shape, ...] = ("chain", "branches", "general")
dp = partial(chain.place, most=10**6)
NEAR = 1e-6
"""Relative: times are rounded by the maximum flow, and summed in other orders."""


def drawn(seed: int) -> Problem:
    """One of 120 kinds of problem: shape, two or three devices, memory limits, groups and pins,
    several results of a node."""
    return synthetic(
        seed,
        nodes=5 + seed % 4,
        devices=2 + seed % 2,
        shape=SHAPES[seed // 2 % 3],
        memory=0.7 if seed // 6 % 2 else None,
        groups=seed // 12 % 2 == 1,
        results=seed % 5 == 0,
    )


def legal(problem: Problem, placement: Placement) -> None:
    check_placement(problem, placement.assignment)
    again = predict(problem, placement.assignment, overlap=placement.prediction.overlap)
    assert again == placement.prediction
    assert again.fits


def least_excess(problem: Problem) -> float:
    """Of every placement, the fewest bytes over."""
    tables = Tables.of(problem)
    grid = np.meshgrid(*tables.allowed, indexing="ij")
    rows = np.stack([axis.ravel() for axis in grid], 1).astype(np.int64)
    return float(tables.evaluate(rows, overlap=False)[1].min())


def agree_with_every_placement(seed: int) -> None:
    """What is called exact is the best there is; what is not is no better; all is legal."""
    print(f"problem drawn from seed {seed}")
    problem = drawn(seed)
    for overlap in (False, True):
        try:
            best = exhaustive.place(problem, overlap=overlap)
        except PlacementError:
            with pytest.raises(MemoryLimitError) as caught:
                ilp.place(problem, overlap=overlap)
            assert caught.value.proven
            assert sum(caught.value.excess.values()) == least_excess(problem)
            for algorithm in (greedy.place, dp, learned.place):
                with pytest.raises(PlacementError, match=r"memory|excess"):
                    algorithm(problem, overlap=overlap)
            continue
        legal(problem, best)
        solved = ilp.place(problem, overlap=overlap)
        legal(problem, solved)
        assert solved.exact
        assert solved.seconds == pytest.approx(best.seconds, rel=NEAR)
        assert solved.bound == pytest.approx(best.seconds, rel=1e-4)
        for algorithm in (greedy.place, dp, cut.place):
            try:
                found = algorithm(problem, overlap=overlap)
            except PlacementError:
                limited = bool(problem.limits) and not (algorithm is dp and chain.is_chain(problem))
                assert limited or (algorithm is cut.place and seed % 2 == 1)
                continue
            legal(problem, found)
            assert found.seconds >= best.seconds * (1 - NEAR)
            if found.exact:
                assert found.seconds == pytest.approx(best.seconds, rel=NEAR)
            must = {dp: not overlap or chain.is_chain(problem), cut.place: not overlap}
            assert found.exact == must.get(algorithm, False)


@pytest.mark.parametrize("seed", range(25))
def test_algorithms_against_every_placement(seed: int) -> None:
    agree_with_every_placement(seed)


@pytest.mark.heavy
@pytest.mark.parametrize("tens", range(20))
def test_algorithms_against_every_placement_on_200_problems(tens: int) -> None:
    for seed in range(1000 + 10 * tens, 1010 + 10 * tens):
        agree_with_every_placement(seed)


@given(seed=st.integers(0, 10**6), overlap=st.booleans())
def test_many_placements_at_once_are_predicted_as_one_by_one(seed: int, overlap: bool) -> None:
    problem = drawn(seed)
    tables = Tables.of(problem)
    draw = np.random.default_rng(seed)
    rows = np.array([[draw.choice(a) for a in tables.allowed] for _ in range(4)], np.int64)
    seconds, excess = tables.evaluate(rows, overlap=overlap)
    for row, took, over in zip(rows, seconds, excess, strict=True):
        assignment = tables.assignment(row)
        one = predict(problem, assignment, overlap=overlap)
        assert took == pytest.approx(one.seconds, rel=1e-12)
        assert over == sum(one.excess.values())
        assert (tables.row(assignment) == row).all()


def test_the_learned_search_comes_near_and_repeats_itself() -> None:
    gaps = []
    for seed in range(0, 24, 3):
        problem = drawn(seed)
        best = exhaustive.place(problem).seconds
        found = learned.place(problem, seed=1, samples=900)
        legal(problem, found)
        assert not found.exact
        assert found.note == "900 draws, seed 1"
        again = learned.place(problem, seed=1, samples=900)
        assert again.assignment == found.assignment
        gaps.append(found.seconds / best - 1)
    print("gaps of the learned search", gaps)
    assert np.mean(gaps) < 0.2


def test_the_learned_search_learns() -> None:
    """What it draws at the end is better than what it drew at first."""
    problem = synthetic(3, nodes=30, devices=3)
    policy = learned._Policy(tables := Tables.of(problem))
    draw, means = np.random.default_rng(0), []
    for _ in range(60):
        rows, trace = policy.draw(draw)
        seconds, _ = tables.evaluate(rows, overlap=False)
        means.append(seconds.mean())
        reward = -np.sqrt(seconds)
        policy.learn(trace, (reward - reward.mean()) / reward.std(), 0.0)
    assert np.mean(means[-5:]) < 0.7 * np.mean(means[:5])


def test_greedy_loses_to_transfers_where_others_look_ahead() -> None:
    """A fast device whose result must come back over a slow link: the well-known trap."""
    nodes = (
        Node("a", "op", {"cpu": 1.0, "gpu": 0.9}, output_bytes=100),
        Node("b", "op", {"cpu": 1.0}, output_bytes=4),
    )
    links = tuple(both_ways("cpu", "gpu", 0.0, 10.0))
    problem = Problem(nodes, (Device("cpu"), Device("gpu")), (Edge("a", "b", 100),), links)
    assert greedy.place(problem).seconds == pytest.approx(0.9 + 10 + 1)
    for algorithm in (chain.place, cut.place, ilp.place):
        assert algorithm(problem).seconds == pytest.approx(2)
    choice = choose(problem)
    assert choice.best.seconds == pytest.approx(2)
    assert [row.algorithm for row in choice.rows][:3] == ["all on cpu", "all on gpu", "greedy"]
    assert "cannot run on gpu" in choice.rows[1].fault


def test_a_graph_with_many_open_values_is_said_to_be_inexact() -> None:
    problem = synthetic(2, nodes=14, devices=3)
    narrow = chain.place(problem, most=5)
    assert not narrow.exact
    assert narrow.note == "only the fastest 5 states were kept"
    whole = chain.place(problem, most=10**6)
    assert whole.exact
    assert whole.seconds <= narrow.seconds
    assert whole.seconds == pytest.approx(ilp.place(problem).seconds, rel=NEAR)


def test_a_cut_is_between_two_devices() -> None:
    with pytest.raises(
        NotApplicableError, match=r"between two devices, here are cpu, dev:0, dev:1"
    ):
        cut.place(synthetic(1, devices=3))


def test_a_cut_with_the_host_as_third_device() -> None:
    problem = synthetic(4, devices=3, unsupported=0.0)
    nodes = [
        replace(n, seconds={d: s for d, s in n.seconds.items() if d != "cpu"})
        for n in problem.nodes
    ]
    problem = replace(problem, nodes=tuple(nodes))
    assert cut.place(problem).seconds == pytest.approx(exhaustive.place(problem).seconds, rel=NEAR)


def test_a_search_that_runs_out_of_time_tells_its_gap() -> None:
    problem = synthetic(5, nodes=40, devices=3)
    try:
        found = ilp.place(problem, overlap=True, time_limit_s=1.5)
    except PlacementError as error:
        if "ilp found no placement in 1.5 s" not in error.message:
            raise
        return  # a slow machine
    legal(problem, found)
    assert not found.exact
    assert found.note.startswith("stopped with a gap of ")
    assert found.bound is not None
    assert found.bound <= found.seconds


def test_trying_every_placement_is_for_small_problems() -> None:
    with pytest.raises(NotApplicableError, match="up to 100 of them, here are"):
        exhaustive.place(synthetic(0, nodes=12), most=100)


def test_limits_that_nothing_meets_are_told_with_the_smallest_excess() -> None:
    nodes = tuple(
        Node(name, "dense", {"cpu": 1.0, "gpu": 1.0}, weight_bytes=size)
        for name, size in (("a", 700), ("b", 500), ("c", 400))
    )
    links = tuple(both_ways("cpu", "gpu", 0.0, 1e9))
    problem = Problem(nodes, (Device("cpu", 600), Device("gpu", 800)), links=links)
    with pytest.raises(MemoryLimitError) as caught:
        choose(problem)
    # a on the gpu: b and c are 300 over on the cpu, c is there beside a. b and c on the gpu: a is
    # 100 over on the cpu, and they are 100 over.
    assert caught.value.excess == {"cpu": 100, "gpu": 100}
    assert "the smallest excess is 200 bytes" in str(caught.value)
    assert "Raise the limits, add a device" in str(caught.value)


def test_choose_takes_the_best_and_tells_of_all() -> None:
    problem = drawn(4)
    choice = choose(problem, overlap=True)
    found = [row.placement.seconds for row in choice.rows if row.placement]
    assert choice.best.seconds == min(found)
    assert choice.best.exact
    assert {row.algorithm for row in choice.rows} >= {"greedy", "dp", "cut", "ilp", "learned"}
    with pytest.raises(PlacementError, match=r"unknown algorithm 'gready' \(near: greedy\)"):
        choose(problem, algorithms=["gready"])


def test_no_algorithm_starts_where_no_device_can_run_an_operator() -> None:
    problem = synthetic(0)
    nodes = (replace(problem.nodes[0], seconds={}, reasons={"cpu": "no"}), *problem.nodes[1:])
    for run in (choose, greedy.place, chain.place, cut.place, ilp.place, learned.place):
        with pytest.raises(NoDeviceError, match=r"n0 .*cpu: no, dev:0: no reason is given"):
            run(replace(problem, nodes=nodes))
