"""Problems and their files: what is read back is equal, what contradicts itself is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.compiler.placement.errors import NoDeviceError, PlacementError, ProblemError
from burnish.compiler.placement.problem import Device, Node, Problem
from burnish.compiler.placement.problem_file import (
    parse_problem,
    problem_text,
    read_problem,
    write_problem,
)
from burnish.compiler.placement.synthetic import synthetic
from burnish.compiler.placement.units import units


def small() -> dict[str, Any]:
    """Two nodes on two devices, as the file says it."""
    link = {"latency_seconds": 1e-5, "bytes_per_second": 1e9}
    return {
        "schema": 1,
        "host": "cpu",
        "devices": [{"name": "cpu"}, {"name": "gpu", "memory_bytes": 1000}],
        "links": [
            {"source": "cpu", "target": "gpu", **link},
            {"source": "gpu", "target": "cpu", **link},
        ],
        "nodes": [
            {"name": "a", "operator": "conv", "seconds": {"cpu": 1, "gpu": 0.5}, "output_bytes": 8},
            {"name": "b", "operator": "add", "seconds": {"cpu": 1.0}, "reasons": {"gpu": "no add"}},
        ],
        "edges": [{"source": "a", "target": "b"}],
        "inputs": [{"name": "x", "bytes": 4, "targets": ["a"]}],
        "outputs": [{"source": "b"}],
        "together": [],
        "pins": {"b*": "cpu"},
    }


def test_a_file_says_what_the_classes_say(tmp_path: Path) -> None:
    problem = parse_problem(json.dumps(small()))
    assert problem.edges[0].bytes == 8  # the source's output_bytes, as none were given
    assert [value.name for value in problem.values] == ["x", "a", "b"]
    write_problem(problem, tmp_path / "p.json")
    assert read_problem(tmp_path / "p.json") == problem


@given(seed=st.integers(0, 10**6), devices=st.integers(1, 4), groups=st.booleans())
def test_what_is_written_is_read_back(seed: int, devices: int, groups: bool) -> None:
    problem = synthetic(seed, devices=devices, memory=0.7, groups=groups)
    assert parse_problem(problem_text(problem)) == problem


def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        at: Any = data
        for key in path[:-1]:
            at = at[key]
        if isinstance(at, list) and path[-1] == "+":
            at.append(value)
        else:
            at[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("schema", value=2), "says schema 2; this version reads schema 1"),
        (put("node", value=[]), "unknown key 'node' (near: nodes)"),
        (put("nodes", 0, "second", value={}), "nodes[0] has the unknown key 'second'"),
        (put("nodes", value={}), "nodes must be a list"),
        (put("nodes", 0, value=3), "nodes[0] must be an object, got 3"),
        (put("nodes", 0, value={"name": "a"}), "nodes[0] lacks 'operator'"),
        (put("nodes", 0, "seconds", "cpu", value="1"), "seconds of nodes[0] at 'cpu' must be a n"),
        (put("nodes", 0, "seconds", "cpu", value=True), "must be a number, got True"),
        (put("nodes", 0, "seconds", "cpu", value=-1), "seconds of node a on cpu must be finite"),
        (put("nodes", 0, "seconds", "cup", value=1), "unknown device 'cup' (near: cpu)"),
        (put("nodes", 0, "weight_bytes", value=1.5), "weight_bytes of nodes[0] must be a whole"),
        (put("nodes", 0, "weight_bytes", value=-1), "weight_bytes of node a must be a whole"),
        (put("nodes", 1, "name", value="a"), "node or input 'a' is there 2 times"),
        (put("nodes", 1, "reasons", "cpu", value="slow"), "both a time and a reason against cpu"),
        (put("nodes", value=[]), "the problem has no nodes"),
        (put("devices", 1, "name", value="cpu"), "device 'cpu' is there 2 times"),
        (put("devices", 1, "memory_bytes", value=-5), "memory_bytes of device gpu"),
        (put("host", value="cup"), "host names the unknown device 'cup'"),
        (put("edges", 0, "bytes", value=9), "moves 9 bytes, more than the output_bytes 8"),
        (put("edges", "+", value={"source": "a", "target": "b"}), "edge 'a -> b' is there 2"),
        (put("edges", 0, "target", value="c"), "edge a -> c names the unknown node 'c'"),
        (put("edges", "+", value={"source": "b", "target": "a"}), "circle: a -> b -> a"),
        (
            lambda data: data["nodes"].reverse(),
            "edge a -> b runs backwards; list node a before b",
        ),
        (put("links", 0, "bytes_per_second", value=0), "bytes_per_second of link cpu -> gpu is 0"),
        (put("links", 0, "target", value="cpu"), "link cpu -> cpu leads nowhere"),
        (put("links", value=[]), "no link cpu -> gpu, and none by the host cpu"),
        (put("inputs", 0, "targets", value=["z"]), "input x names the unknown node 'z'"),
        (put("outputs", "+", value={"source": "b"}), "output 'b' is there 2 times"),
        (put("together", value=[["a"]]), "the group [a] in together has fewer than two nodes"),
        (put("together", value=[["a", "q"]]), "names the unknown node 'q'"),
        (put("pins", "z*", value="cpu"), "pin 'z*' fits no node"),
        (put("pins", "a", value="tpu"), "pin 'a' names the unknown device 'tpu'"),
    ],
)
def test_contradictions_are_refused_by_name(
    change: Callable[[dict[str, Any]], None], message: str
) -> None:
    data = small()
    change(data)
    with pytest.raises(ProblemError) as caught:
        parse_problem(json.dumps(data))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "it is no object"),
        ("{}", "it says no schema"),
        ('{"schema": 1, "schema": 1}', "a key is there twice: 'schema'"),
        (json.dumps(small()).replace("0.5", "NaN"), "NaN is no number of JSON"),
        (json.dumps(small()).replace("0.5", "1e999"), "must be finite and not negative, got inf"),
    ],
)
def test_damaged_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ProblemError) as caught:
        read_problem(tmp_path / "p.json")
    assert message in str(caught.value)
    assert "p.json" in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="No such file"):
        read_problem(tmp_path / "none.json")


def test_operators_that_no_device_runs_are_all_listed_with_reasons() -> None:
    nodes = (
        Node("a", "fft", {}, {"cpu": "no kernel", "gpu": "complex64 is not there"}),
        Node("b", "sort", {"gpu": 1.0}, {"cpu": "no kernel"}),
        Node("c", "add", {"cpu": 1.0, "gpu": 1.0}),
        Node("d", "erf", {}),
    )
    problem = Problem(nodes, (Device("cpu"), Device("gpu")), links=synthetic_links())
    with pytest.raises(NoDeviceError) as caught:
        units(problem)
    text = str(caught.value)
    assert "no device can run 2 operators" in text
    assert "a (fft): cpu: no kernel, gpu: complex64 is not there" in text
    assert "d (erf): cpu: no reason is given" in text
    assert [item["node"] for item in json.loads(caught.value.to_json())["nodes"]] == ["a", "d"]


def test_a_pin_to_a_device_that_cannot_is_refused_with_the_reason() -> None:
    nodes = (Node("a", "sort", {"gpu": 1.0}, {"cpu": "no kernel for int64"}),)
    problem = Problem(
        nodes, (Device("cpu"), Device("gpu")), links=synthetic_links(), pins={"a": "cpu"}
    )
    with pytest.raises(NoDeviceError) as caught:
        units(problem)
    assert "cpu: no kernel for int64, gpu: it could, but a pin says cpu" in str(caught.value)


def test_groups_share_a_device_and_the_last_pin_holds() -> None:
    both = {"cpu": 1.0, "gpu": 1.0}
    nodes = tuple(Node(name, "add", both) for name in ("a", "b", "c", "d"))
    devices = (Device("cpu"), Device("gpu"))
    groups = (("a", "c"), ("c", "d"))
    made = Problem(
        nodes, devices, links=synthetic_links(), together=groups, pins={"*": "cpu", "d": "gpu"}
    )
    with pytest.raises(PlacementError, match=r"no device can run all of a group.*d \(add\) on gpu"):
        units(made)
    free = Problem(nodes, devices, links=synthetic_links(), together=groups, pins={"d": "gpu"})
    assert [(unit.members, unit.devices) for unit in units(free)] == [
        ((0, 2, 3), ("gpu",)),
        ((1,), ("cpu", "gpu")),
    ]


def synthetic_links() -> Any:
    from burnish.compiler.placement.problem import both_ways

    return both_ways("cpu", "gpu", 0.0, 1e9)
