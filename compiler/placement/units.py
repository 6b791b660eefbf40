"""What is placed as one: nodes kept together, with the devices that can take all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from burnish.compiler.placement.errors import NoDeviceError, PlacementError, Unplaced
from burnish.compiler.placement.problem import Problem
from burnish.compiler.registry import near


@dataclass(frozen=True)
class Unit:
    """Positions of nodes that go to one device, ascending, and the devices that may be it."""

    members: tuple[int, ...]
    devices: tuple[str, ...]


def pinned(problem: Problem) -> dict[str, str]:
    """The device of each node that a pin fits; the last pin that fits holds."""
    return {
        node.name: device
        for node in problem.nodes
        for pattern, device in problem.pins.items()
        if fnmatchcase(node.name, pattern)
    }


def units(problem: Problem) -> tuple[Unit, ...]:
    """The units, by their first member.

    Raises :class:`NoDeviceError` with every node that no device can run, and
    :class:`PlacementError` for nodes kept together that no one device can run.
    """
    pins = pinned(problem)
    allowed: list[list[str]] = []
    for node in problem.nodes:
        pin = pins.get(node.name)
        allowed.append([d for d in node.seconds if pin in (None, d)])
    lost = [
        Unplaced(node.name, node.operator, _reasons(problem, position, pins.get(node.name)))
        for position, node in enumerate(problem.nodes)
        if not allowed[position]
    ]
    if lost:
        raise NoDeviceError(lost)
    found = []
    order = [device.name for device in problem.devices]
    for members in _merged(problem):
        common = [d for d in order if all(d in allowed[member] for member in members)]
        if not common:
            said = "; ".join(
                f"{problem.nodes[m].name} ({problem.nodes[m].operator}) on "
                + ", ".join(allowed[m])
                + (" (pinned)" if problem.nodes[m].name in pins else "")
                for m in members
            )
            raise PlacementError(
                f"no device can run all of a group that is kept together: {said}. Take nodes out "
                "of the group, or change the pins"
            )
        found.append(Unit(tuple(members), tuple(common)))
    return tuple(found)


def check_placement(problem: Problem, placement: Mapping[str, str]) -> None:
    """Raise :class:`PlacementError` where ``placement`` breaks pins, groups or support."""
    unknown = sorted(set(placement) - set(problem.index))
    if unknown:
        raise PlacementError(
            f"the placement names the unknown node {unknown[0]!r}{near(unknown[0], problem.index)}"
        )
    pins = pinned(problem)
    for node in problem.nodes:
        if node.name not in placement:
            raise PlacementError(f"the placement says no device for node {node.name}; add it")
        device = placement[node.name]
        if device not in node.seconds:
            why = node.reasons.get(device, "no time is known for it there")
            raise PlacementError(
                f"node {node.name} ({node.operator}) cannot run on {device}: {why}; "
                f"it can on {', '.join(node.seconds) or 'none'}"
            )
        if pins.get(node.name, device) != device:
            raise PlacementError(f"node {node.name} is pinned to {pins[node.name]}, not {device}")
    for members in _merged(problem):
        names = [problem.nodes[member].name for member in members]
        devices = {placement[name] for name in names}
        if len(devices) > 1:
            raise PlacementError(
                f"the nodes {', '.join(names)} are kept together, but the placement has them on "
                f"{', '.join(sorted(devices))}"
            )


def _merged(problem: Problem) -> list[list[int]]:
    """Groups with a node in common are one; a node of no group is alone."""
    root = list(range(len(problem.nodes)))

    def find(at: int) -> int:
        while root[at] != at:
            root[at] = root[root[at]]
            at = root[at]
        return at

    for group in problem.together:
        first = find(problem.index[group[0]])
        for name in group[1:]:
            other = find(problem.index[name])
            low, high = sorted((first, other))
            root[high] = first = low
    found: dict[int, list[int]] = {}
    for position in range(len(problem.nodes)):
        found.setdefault(find(position), []).append(position)
    return list(found.values())


def _reasons(problem: Problem, position: int, pin: str | None) -> dict[str, str]:
    node = problem.nodes[position]
    reasons = {}
    for device in problem.devices:
        if device.name in node.seconds:
            reasons[device.name] = f"it could, but a pin says {pin}"
        else:
            reasons[device.name] = node.reasons.get(device.name, "no reason is given")
    return reasons
