"""The rules of a placement problem, each refused by name with what to do.

1. Numbers are finite and not negative; a rate is above 0.
2. Devices, links, nodes and inputs are there once; nodes and inputs share one set of names.
3. What names a device or a node names one that is there.
4. Edges run forward in the list of nodes, so there is no cycle.
5. One value of a node has one size, no larger than the node's output.
6. Any device that can run a node is linked with the host and with every other such device.
7. A pin fits at least one node, and a group has at least two.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from burnish.compiler.placement.errors import ProblemError
from burnish.compiler.registry import near

if TYPE_CHECKING:
    from burnish.compiler.placement.problem import Edge, Output, Problem

SIZES = ("weight_bytes", "state_bytes", "output_bytes", "work_bytes")


def check_problem(problem: Problem) -> None:
    """Raise :class:`ProblemError` for the first rule that is broken."""
    if not problem.devices or not problem.nodes:
        missing = "nodes" if problem.devices else "devices"
        raise ProblemError(f"the problem has no {missing}; give at least one")
    devices = _once("device", (device.name for device in problem.devices))
    names = [node.name for node in problem.nodes]
    _once("node or input", [*names, *(item.name for item in problem.inputs)])
    nodes = set(names)
    _known("host", problem.host, devices, "device")
    for device in problem.devices:
        if device.memory_bytes is not None:
            _size(f"memory_bytes of device {device.name}", device.memory_bytes)
    _check_links(problem, devices)
    _check_nodes(problem, devices)
    _check_flow(problem, nodes)
    _check_order(problem)
    _check_groups(problem, nodes, devices)
    _check_reachable(problem)


def _check_links(problem: Problem, devices: set[str]) -> None:
    _once("link", (f"{link.source} -> {link.target}" for link in problem.links))
    for link in problem.links:
        where = f"link {link.source} -> {link.target}"
        for end in (link.source, link.target):
            _known(where, end, devices, "device")
        if link.source == link.target:
            raise ProblemError(f"{where} leads nowhere; leave it out")
        _seconds(f"latency_seconds of {where}", link.latency_seconds)
        _seconds(f"bytes_per_second of {where}", link.bytes_per_second)
        if link.bytes_per_second == 0:
            raise ProblemError(f"bytes_per_second of {where} is 0; leave the link out")


def _check_nodes(problem: Problem, devices: set[str]) -> None:
    shared: dict[str, tuple[int, str]] = {}
    for node in problem.nodes:
        for device, seconds in node.seconds.items():
            _known(f"seconds of node {node.name}", device, devices, "device")
            _seconds(f"seconds of node {node.name} on {device}", seconds)
        for device in node.reasons:
            _known(f"reasons of node {node.name}", device, devices, "device")
            if device in node.seconds:
                raise ProblemError(
                    f"node {node.name} has both a time and a reason against {device}; "
                    "keep one of them"
                )
        for key in SIZES:
            _size(f"{key} of node {node.name}", getattr(node, key))
        for weight, count in node.weights.items():
            _size(f"weight {weight} of node {node.name}", count)
            said, other = shared.setdefault(weight, (count, node.name))
            if said != count:
                raise ProblemError(
                    f"weight {weight} has {said} bytes at node {other} and {count} at "
                    f"{node.name}; a shared weight has one size: name the two apart"
                )


def _check_flow(problem: Problem, nodes: set[str]) -> None:
    outputs = {node.name: node.output_bytes for node in problem.nodes}
    sizes: dict[tuple[str, str], int] = {}
    edges = (f"{e.source} -> {e.target} {e.value}".rstrip() for e in problem.edges)
    _once("edge", edges)
    _once("output", (f"{o.source} {o.value}".rstrip() for o in problem.outputs))
    for edge in problem.edges:
        for end in (edge.source, edge.target):
            _known(f"edge {edge.source} -> {edge.target}", end, nodes, "node")
    moved: tuple[Edge | Output, ...] = (*problem.edges, *problem.outputs)
    for item in moved:
        _known("an output", item.source, nodes, "node")
        what = f"value {item.value!r} of node {item.source}" if item.value else item.source
        _size(f"bytes of {what}", item.bytes)
        if sizes.setdefault((item.source, item.value), item.bytes) != item.bytes:
            raise ProblemError(
                f"{what} is moved with {sizes[item.source, item.value]} and with {item.bytes} "
                "bytes; edges of one value have one size: name several results apart by `value`"
            )
        if item.bytes > outputs[item.source]:
            raise ProblemError(
                f"{what} moves {item.bytes} bytes, more than the output_bytes "
                f"{outputs[item.source]} of its node; correct one of them"
            )
    for given in problem.inputs:
        _size(f"bytes of input {given.name}", given.bytes)
        _once(f"target of input {given.name}", given.targets)
        for target in given.targets:
            _known(f"input {given.name}", target, nodes, "node")


def _check_order(problem: Problem) -> None:
    position = {node.name: at for at, node in enumerate(problem.nodes)}
    wrong = [e for e in problem.edges if position[e.source] >= position[e.target]]
    if not wrong:
        return
    follows: dict[str, list[str]] = {}
    for edge in problem.edges:
        follows.setdefault(edge.source, []).append(edge.target)
    for edge in wrong:
        way = _way(edge.target, edge.source, follows)
        if way is not None:
            circle = " -> ".join([*way, way[0]])
            raise ProblemError(f"the nodes form a circle: {circle}; take an edge out")
    first = wrong[0]
    raise ProblemError(
        f"edge {first.source} -> {first.target} runs backwards; list node {first.source} before "
        f"{first.target}: nodes are in topological order"
    )


def _way(start: str, end: str, follows: dict[str, list[str]]) -> list[str] | None:
    before: dict[str, str | None] = {start: None}
    waiting = [start]
    while waiting:
        at = waiting.pop()
        if at == end:
            way: list[str] = []
            step: str | None = at
            while step is not None:
                way.append(step)
                step = before[step]
            return way[::-1]
        for other in follows.get(at, ()):
            if other not in before:
                before[other] = at
                waiting.append(other)
    return None


def _check_groups(problem: Problem, nodes: set[str], devices: set[str]) -> None:
    for group in problem.together:
        said = ", ".join(group)
        if len(group) < 2:
            raise ProblemError(f"the group [{said}] in together has fewer than two nodes; drop it")
        _once(f"node of the group [{said}]", group)
        for name in group:
            _known(f"the group [{said}] in together", name, nodes, "node")
    for pattern, device in problem.pins.items():
        _known(f"pin {pattern!r}", device, devices, "device")
        if not any(fnmatchcase(name, pattern) for name in nodes):
            raise ProblemError(f"pin {pattern!r} fits no node{near(pattern, nodes)}")


def _check_reachable(problem: Problem) -> None:
    used = {device for node in problem.nodes for device in node.seconds} | {problem.host}
    for one in sorted(used):
        for other in sorted(used):
            if one != other and (one, other) not in problem.channels:
                raise ProblemError(
                    f"no link {one} -> {other}, and none by the host {problem.host}; give its "
                    "latency_seconds and bytes_per_second"
                )


def _once(what: str, names: Iterable[str]) -> set[str]:
    counted = Counter(names)
    for name, count in counted.items():
        if not name:
            raise ProblemError(f"a {what} has no name; give it one")
        if count > 1:
            raise ProblemError(f"{what} {name!r} is there {count} times; keep one")
    return set(counted)


def _known(where: str, name: str, known: set[str], what: str) -> None:
    if name not in known:
        raise ProblemError(f"{where} names the unknown {what} {name!r}{near(name, known)}")


def _seconds(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProblemError(f"{what} must be a number, got {value!r:.80}")
    if not math.isfinite(value) or value < 0:
        raise ProblemError(f"{what} must be finite and not negative, got {value!r}")


def _size(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ProblemError(f"{what} must be a whole number of bytes, 0 or more, got {value!r:.80}")
