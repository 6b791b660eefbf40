"""Predictions against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from burnish.compiler.placement.errors import PlacementError
from burnish.compiler.placement.predict import predict
from burnish.compiler.placement.problem import (
    Device,
    Edge,
    Input,
    Link,
    Node,
    Output,
    Problem,
    both_ways,
)


def diamond() -> Problem:
    """a feeds b and c, and both feed d; moving 100 bytes takes 1 + 1 s."""
    nodes = tuple(
        Node(name, "op", {"cpu": cpu, "gpu": gpu}, output_bytes=100, weight_bytes=10, work_bytes=5)
        for name, cpu, gpu in (("a", 4, 2), ("b", 6, 3), ("c", 5, 5), ("d", 2, 1))
    )
    edges = tuple(Edge(s, t, 100) for s, t in ("ab", "ac", "bd", "cd"))
    return Problem(
        nodes,
        (Device("cpu"), Device("gpu", 10_000)),
        edges,
        tuple(both_ways("cpu", "gpu", 1.0, 100.0)),
        (Input("x", 100, ("a",)),),
        (Output("d", 100),),
    )


ALL_CPU = dict.fromkeys("abcd", "cpu")


def test_one_device_takes_the_sum_and_moves_nothing() -> None:
    found = predict(diamond(), ALL_CPU)
    assert found.seconds == 17
    assert found.transfers == ()
    assert predict(diamond(), ALL_CPU, overlap=True).seconds == 17


def test_inputs_and_outputs_move_from_and_to_the_host() -> None:
    found = predict(diamond(), dict.fromkeys("abcd", "gpu"))
    assert found.seconds == 2 + 11 + 2
    assert [(step.label, step.where) for step in found.transfers] == [
        ("x", "cpu -> gpu"),
        ("d", "gpu -> cpu"),
    ]
    assert found.busy == {"cpu -> gpu": 2, "gpu": 11, "gpu -> cpu": 2}


def test_a_value_moves_once_to_each_device() -> None:
    found = predict(diamond(), {"a": "cpu", "b": "gpu", "c": "gpu", "d": "gpu"})
    assert [step.label for step in found.transfers] == ["a", "d"]
    assert found.seconds == 4 + 2 + 3 + 5 + 1 + 2


def test_branches_overlap_on_devices_of_their_own() -> None:
    split = {"a": "cpu", "b": "gpu", "c": "cpu", "d": "cpu"}
    assert predict(diamond(), split).seconds == 4 + 2 + 3 + 2 + 5 + 2
    found = predict(diamond(), split, overlap=True)
    times = {step.label: (step.start, step.end) for step in found.steps if step.kind == "compute"}
    assert times == {"a": (0, 4), "b": (6, 9), "c": (4, 9), "d": (11, 13)}
    assert found.seconds == 13


def test_a_link_carries_one_value_at_a_time() -> None:
    nodes = tuple(Node(name, "op", {"cpu": 1.0, "gpu": 1.0}, output_bytes=100) for name in "ab")
    problem = Problem(
        nodes,
        (Device("cpu"), Device("gpu")),
        (),
        tuple(both_ways("cpu", "gpu", 0.0, 100.0)),
        (Input("x", 300, ("a",)), Input("y", 100, ("b",))),
        (Output("a", 100), Output("b", 100)),
    )
    found = predict(problem, {"a": "gpu", "b": "gpu"}, overlap=True)
    assert [(s.label, s.start, s.end) for s in found.steps] == [
        ("x", 0, 3),
        ("y", 3, 4),
        ("a", 3, 4),
        ("a", 4, 5),
        ("b", 4, 5),
        ("b", 5, 6),
    ]


def test_results_of_a_node_are_moved_apart() -> None:
    nodes = (
        Node("split", "split", {"cpu": 1.0}, output_bytes=100),
        Node("b", "op", {"gpu": 1.0}),
        Node("c", "op", {"cpu": 1.0}),
    )
    edges = (Edge("split", "b", 40, "0"), Edge("split", "c", 60, "1"))
    links = tuple(both_ways("cpu", "gpu", 0.0, 100.0))
    problem = Problem(nodes, (Device("cpu"), Device("gpu")), edges, links)
    (moved,) = predict(problem, {"split": "cpu", "b": "gpu", "c": "cpu"}).transfers
    assert (moved.label, moved.bytes) == ("split.0", 40)
    assert moved.seconds == pytest.approx(0.4)


def test_without_a_link_of_their_own_two_devices_go_by_the_host() -> None:
    nodes = (Node("a", "op", {"x": 1.0}, output_bytes=100), Node("b", "op", {"y": 1.0}))
    links = (
        Link("x", "cpu", 1.0, 100.0),
        Link("cpu", "x", 9.0, 100.0),
        Link("cpu", "y", 2.0, 50.0),
        Link("y", "cpu", 9.0, 50.0),
    )
    devices = (Device("cpu"), Device("x"), Device("y"))
    problem = Problem(nodes, devices, (Edge("a", "b", 100),), links)
    assert predict(problem, {"a": "x", "b": "y"}).seconds == 1 + (1 + 1) + (2 + 2) + 1


def test_memory_is_weights_state_and_what_lives_at_the_worst_position() -> None:
    problem = diamond()
    # cpu: x through the call (100), weights 40, and at c: a, b, c (300) and work 5.
    assert predict(problem, ALL_CPU).memory == {"cpu": 100 + 40 + 300 + 5, "gpu": 0}
    # Copies count where they lie: at c, cpu holds x, a and b's copy, and c; gpu a's copy and b.
    split = predict(problem, {**ALL_CPU, "b": "gpu"})
    assert split.memory == {"cpu": 100 + 30 + 300 + 5, "gpu": 10 + 200 + 5}


def test_shared_weights_count_once_a_device_and_state_for_each_node() -> None:
    nodes = tuple(
        Node(name, "op", {"cpu": 1.0, "gpu": 1.0}, weights={"w": 1000}, state_bytes=7)
        for name in "abc"
    )
    links = tuple(both_ways("cpu", "gpu", 0.0, 1.0))
    problem = Problem(nodes, (Device("cpu"), Device("gpu", 1006)), links=links)
    found = predict(problem, {"a": "cpu", "b": "cpu", "c": "gpu"})
    assert found.memory == {"cpu": 1014, "gpu": 1007}
    assert found.excess == {"gpu": 1}
    assert not found.fits


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ({"a": "cpu"}, "no device for node b"),
        ({**ALL_CPU, "e": "cpu"}, "unknown node 'e'"),
        ({**ALL_CPU, "b": "tpu"}, "node b (op) cannot run on tpu: no time is known for it there"),
        ({**ALL_CPU, "d": "gpu"}, "node d is pinned to cpu, not gpu"),
        ({**ALL_CPU, "b": "gpu"}, "the nodes b, c are kept together"),
    ],
)
def test_placements_that_do_not_fit_the_problem(placement: dict[str, str], message: str) -> None:
    problem = replace(diamond(), together=(("b", "c"),), pins={"d": "cpu"})
    with pytest.raises(PlacementError) as caught:
        predict(problem, placement)
    assert message in str(caught.value)
