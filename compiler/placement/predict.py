"""What a placement takes: time by a list schedule, memory by liveness.

Time. Nodes run in the order of the problem. When a node is done, each of its values is moved once
to each other device that uses it (in the order of first use), and to the host where the model
returns it; inputs start at the host at time 0. Each link carries one value at a time, first come
first served. ``overlap=False`` is one executable on one virtual machine: devices and links take
turns, so the time is the sum. With ``overlap=True`` each device and each link works by itself
(device threads), and a node waits for its device and its inputs only.

Memory of a device: weights and state of its nodes (a shared weight once), and the largest sum over
the positions of the order of the results and copies held there and the work space of the node at
that position. A result is held from its node to its last use on any device, and so is a copy; an
input at the host through the whole call. So memory does not depend on times, and is linear in
what an optimizer decides. While devices take turns it is never too little; with overlap, a device
that is ahead of others may hold results that the order would have it make later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from burnish.compiler.placement.errors import PlacementError
from burnish.compiler.placement.problem import Problem, Value
from burnish.compiler.placement.timeline import Step, busy_seconds, link_name
from burnish.compiler.placement.units import check_placement


@dataclass(frozen=True)
class Prediction:
    """What a placement is expected to take.

    ``busy`` has the seconds of each device and each link that is used; ``memory`` the peak bytes
    of each device; ``excess`` the bytes over the limit, of the devices that are over.
    """

    seconds: float
    busy: Mapping[str, float]
    memory: Mapping[str, int]
    excess: Mapping[str, int]
    steps: tuple[Step, ...]
    overlap: bool = False

    @property
    def transfers(self) -> tuple[Step, ...]:
        """The steps that move something."""
        return tuple(step for step in self.steps if step.kind == "transfer")

    @property
    def fits(self) -> bool:
        """Whether every memory limit is met."""
        return not self.excess


@dataclass(frozen=True)
class Placement:
    """The device of each node, by ``algorithm``, and what it is expected to take.

    ``exact`` says that no other placement has a better prediction under the same execution.
    ``bound`` is a time that no placement is below, in seconds, where one is known; ``note`` says
    what else there is to say about the search.
    """

    algorithm: str
    assignment: Mapping[str, str]
    prediction: Prediction
    exact: bool = False
    bound: float | None = None
    note: str = ""

    @property
    def seconds(self) -> float:
        return self.prediction.seconds


def predict(problem: Problem, placement: Mapping[str, str], *, overlap: bool = False) -> Prediction:
    """The time and memory of a placement, node name to device.

    Raises :class:`PlacementError` for a placement that is incomplete, breaks a pin or a group, or
    has a node where it cannot run. Memory over a limit is told in ``excess``, not refused.
    """
    check_placement(problem, placement)
    where = [placement[node.name] for node in problem.nodes]
    steps = _schedule(problem, where, overlap)
    memory = memory_bytes(problem, where)
    excess = {d: memory[d] - most for d, most in problem.limits.items() if memory[d] > most}
    seconds = max((step.end for step in steps), default=0.0)
    return Prediction(seconds, busy_seconds(steps), memory, excess, tuple(steps), overlap)


def placed(
    problem: Problem,
    algorithm: str,
    assignment: Mapping[str, str],
    *,
    overlap: bool,
    exact: bool = False,
    bound: float | None = None,
    note: str = "",
) -> Placement:
    """An algorithm's answer with its prediction; one that is over a limit is refused."""
    prediction = predict(problem, assignment, overlap=overlap)
    if prediction.excess:
        over = ", ".join(f"{d} by {count:,} bytes" for d, count in prediction.excess.items())
        raise PlacementError(f"{algorithm} found no placement in memory: over on {over}; use ilp")
    return Placement(algorithm, dict(assignment), prediction, exact, bound, note)


def destinations(problem: Problem, value: Value, where: list[str]) -> list[str]:
    """The devices a value is moved to, by first use, then the host."""
    source = problem.host if value.source is None else where[value.source]
    wanted = [where[target] for target in value.targets]
    if value.to_host:
        wanted.append(problem.host)
    return [device for device in dict.fromkeys(wanted) if device != source]


def _schedule(problem: Problem, where: list[str], overlap: bool) -> list[Step]:
    free: dict[str, float] = {}
    arrived: dict[int, dict[str, float]] = {}
    outgoing: dict[int | None, list[int]] = {}
    uses: list[list[int]] = [[] for _ in problem.nodes]
    for at, value in enumerate(problem.values):
        outgoing.setdefault(value.source, []).append(at)
        for target in value.targets:
            uses[target].append(at)
    steps: list[Step] = []

    def take(kind: str, place: str, label: str, ready: float, seconds: float, count: int) -> float:
        clock = place if overlap else ""
        start = max(free.get(clock, 0.0), ready)
        free[clock] = end = start + seconds
        steps.append(Step(kind, place, label, start, end, bytes=count))  # type: ignore[arg-type]
        return end

    def send(source: int | None, ready: float) -> None:
        here = problem.host if source is None else where[source]
        for at in outgoing.get(source, ()):
            value = problem.values[at]
            arrived[at] = {here: ready}
            for device in destinations(problem, value, where):
                seconds = problem.move_seconds(here, device, value.bytes)
                place = link_name(here, device)
                arrived[at][device] = take(
                    "transfer", place, value.name, ready, seconds, value.bytes
                )

    send(None, 0.0)
    for position, node in enumerate(problem.nodes):
        device = where[position]
        ready = max((arrived[at][device] for at in uses[position]), default=0.0)
        end = take("compute", device, node.name, ready, node.seconds[device], 0)
        send(position, end)
    return steps


def memory_bytes(problem: Problem, where: list[str]) -> dict[str, int]:
    """Peak bytes of each device; ``where`` is the device of each node by position."""
    count = len(problem.nodes)
    rows = {device.name: at for at, device in enumerate(problem.devices)}
    change = np.zeros((len(rows), count + 1), np.int64)
    fixed = np.zeros(len(rows), np.int64)
    held: set[tuple[int, str]] = set()
    last = list(range(count))

    def hold(device: str, first: int, until: int, size: int) -> None:
        change[rows[device], first] += size
        change[rows[device], until + 1] -= size

    for value in problem.values:
        if value.source is None:
            hold(problem.host, 0, count - 1, value.bytes)
        else:
            last[value.source] = max(last[value.source], value.last)
        for device in destinations(problem, value, where):
            hold(device, value.first, value.last, value.bytes)
    for position, node in enumerate(problem.nodes):
        device = where[position]
        fixed[rows[device]] += node.weight_bytes + node.state_bytes
        for weight, size in node.weights.items():
            if (key := (rows[device], weight)) not in held:
                held.add(key)
                fixed[rows[device]] += size
        hold(device, position, last[position], node.output_bytes)
        hold(device, position, position, node.work_bytes)
    peaks = fixed + np.cumsum(change, axis=1)[:, :count].max(axis=1)
    return {name: int(peaks[at]) for name, at in rows.items()}
