"""Generated problems with made-up costs, for tests and for comparing algorithms."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from burnish.compiler.placement.predict import memory_bytes
from burnish.compiler.placement.problem import Device, Edge, Input, Link, Node, Output, Problem

Shape = Literal["chain", "branches", "general"]


def synthetic(
    seed: int,
    *,
    nodes: int = 8,
    devices: int = 2,
    shape: Shape = "general",
    memory: float | None = None,
    unsupported: float = 0.1,
    groups: bool = False,
    results: bool = False,
) -> Problem:
    """A problem drawn from ``seed``: the same one each time.

    Times are 0.1 to 3 ms and differ between devices up to tenfold; values have 1 kB to 4 MB, links
    1 to 10 GB/s. ``unsupported`` is the share of (node, device) pairs that cannot run; the host
    runs all. With ``memory``, every device but one has that share of what the whole problem would
    take on it: 0.6 forces a cut where two devices must share. ``results`` gives nodes two results
    each, and state that stays between calls.
    """
    draw = random.Random(f"{seed} {nodes} {devices} {shape}")
    names = ["cpu", *(f"dev:{at}" for at in range(devices - 1))]
    speed = {name: draw.uniform(0.3, 3.0) for name in names}
    made = []
    for at in range(nodes):
        base = draw.uniform(0.1, 1.0) * 1e-3
        times = {name: base * speed[name] * draw.uniform(0.4, 1.6) for name in names}
        reasons = {
            name: "made up: not supported" for name in names[1:] if draw.random() < unsupported
        }
        seconds = {name: value for name, value in times.items() if name not in reasons}
        sizes = [draw.randrange(1_000, 4_000_000) for _ in range(3)]
        shared = {f"w{draw.randrange(3)}": 500_000} if draw.random() < 0.2 else {}
        made.append(
            Node(
                f"n{at}",
                draw.choice(("conv", "dense", "add")),
                seconds,
                reasons,
                weight_bytes=sizes[0],
                weights=shared,
                output_bytes=sizes[1],
                work_bytes=sizes[2] // 4,
            )
        )
    edges = [
        Edge(made[a].name, made[b].name, made[a].output_bytes) for a, b in _pairs(draw, made, shape)
    ]
    links = [
        Link(a, b, draw.uniform(5e-6, 1e-4), draw.uniform(1e9, 1e10))
        for a in names
        for b in names
        if a != b
    ]
    starts = [node.name for node in made if all(edge.target != node.name for edge in edges)]
    ends = [node for node in made if all(edge.source != node.name for edge in edges)]
    together: Sequence[tuple[str, ...]] = ()
    pins: Mapping[str, str] = {}
    if groups and nodes >= 4:
        first = draw.randrange(nodes - 2)
        together = [(made[first].name, made[first + 2].name)]
        pins = {made[-1].name: "cpu"}
    problem = Problem(
        tuple(made),
        tuple(map(Device, names)),
        tuple(edges),
        tuple(links),
        (Input("x", draw.randrange(1_000, 1_000_000), tuple(starts)),),
        tuple(Output(node.name, node.output_bytes) for node in ends),
        together=tuple(together),
        pins=pins,
    )
    if results:
        problem = _with_results(problem, draw)
    return problem if memory is None else _limited(problem, memory, draw)


def _with_results(problem: Problem, draw: random.Random) -> Problem:
    """Edges and outputs carry one of two results of their source; nodes hold state."""
    sizes = {
        node.name: {"": node.output_bytes // 3, "b": node.output_bytes // 2}
        for node in problem.nodes
    }
    edges = []
    for edge in problem.edges:
        value = draw.choice(("", "b"))
        edges.append(Edge(edge.source, edge.target, sizes[edge.source][value], value))
        if draw.random() < 0.3:
            other = "" if value else "b"
            edges.append(Edge(edge.source, edge.target, sizes[edge.source][other], other))
    outputs = [
        Output(output.source, count, value)
        for output in problem.outputs
        for value, count in sizes[output.source].items()
    ]
    early = problem.nodes[0].name  # a result that is both used and returned
    outputs.append(Output(early, sizes[early][""]))
    nodes = [replace(node, state_bytes=draw.randrange(2_000_000)) for node in problem.nodes]
    kept = list(dict.fromkeys(outputs))
    return replace(problem, nodes=tuple(nodes), edges=tuple(edges), outputs=tuple(kept))


def _pairs(draw: random.Random, made: Sequence[Node], shape: Shape) -> list[tuple[int, int]]:
    count = len(made)
    if shape == "chain":
        return [(at, at + 1) for at in range(count - 1)]
    if shape == "branches":
        width = 2 if count < 8 else 3
        inner = range(1, count - 1)
        pairs = [(at - width if at - width >= 1 else 0, at) for at in inner]
        return pairs + [(at, count - 1) for at in inner if at + width > count - 2]
    found = {(draw.randrange(at), at) for at in range(1, count)}
    for _ in range(count // 2):
        a, b = sorted(draw.sample(range(count), 2))
        found.add((a, b))
    return sorted(found)


def _limited(problem: Problem, share: float, draw: random.Random) -> Problem:
    """Limits on all devices but one (the host, in half of the draws)."""
    free = problem.host if draw.random() < 0.5 else problem.devices[-1].name
    devices = []
    for device in problem.devices:
        whole = memory_bytes(problem, [device.name] * len(problem.nodes))[device.name]
        limit = None if device.name == free else int(whole * share)
        devices.append(replace(device, memory_bytes=limit))
    return replace(problem, devices=tuple(devices))
