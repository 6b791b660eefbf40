"""A pipeline run in simulation: stages, micro-batches, links, and what limits them.

Events in order of time: each device and each link does one thing at a time, in the order in which
things are ready. A micro-batch is sent to a stage only when fewer than ``depth`` of them are there,
waiting or worked on (back-pressure). Stages whose links have one name share it (a bus, a network
card), which a formula for the slowest stage does not see.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from burnish.compiler.placement.errors import PlacementError
from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.stages import Cut, cut_stages, on_equal_devices
from burnish.compiler.placement.timeline import Step, busy_seconds, link_name

MOST_DEVICES = 64


@dataclass(frozen=True)
class Hop:
    """A stage of a simulation: what it does to a micro-batch, after what came over ``link``.

    ``move_seconds`` is 0 where nothing has to be moved.
    """

    device: str
    seconds: float
    link: str = ""
    move_seconds: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class Simulation:
    """``bubble`` is the share of the devices' time without work; ``limit`` the busiest device or
    link; ``pace`` the seconds between micro-batches in the middle of the run."""

    steps: tuple[Step, ...]
    seconds: float
    bubble: float
    pace: float
    limit: str


def simulate(hops: Sequence[Hop], micro_batches: int, *, depth: int = 2) -> Simulation:
    """Run ``micro_batches`` through ``hops``, at most 64 of them, each on a device of its own."""
    _check(hops, micro_batches, depth)
    queues: dict[str, deque[tuple[int, int]]] = {}
    idle: dict[str, bool] = {}
    inside = [0] * len(hops)
    blocked: list[deque[int]] = [deque() for _ in hops]
    blocked[0].extend(range(micro_batches))
    events: list[tuple[float, int, str, int, int]] = []
    steps: list[Step] = []
    done: list[float] = []
    count = 0

    def start(where: str, now: float) -> None:
        """Begin the next thing that waits for a device or link."""
        nonlocal count
        queue = queues.get(where)
        if not queue or not idle.get(where, True):
            return
        stage, batch = queue.popleft()
        hop = hops[stage]
        moving = where != hop.device
        took = hop.move_seconds if moving else hop.seconds
        kind = "transfer" if moving else "compute"
        steps.append(
            Step(
                "transfer" if moving else "compute",
                where,
                f"stage {stage}",
                now,
                now + took,
                batch,
                hop.bytes if moving else 0,
            )
        )
        idle[where] = False
        count += 1
        heapq.heappush(events, (now + took, count, kind, stage, batch))

    def wait(where: str, stage: int, batch: int, now: float) -> None:
        queues.setdefault(where, deque()).append((stage, batch))
        start(where, now)

    def admit(stage: int, now: float) -> None:
        """Send waiting micro-batches on to a stage that has room."""
        while blocked[stage] and inside[stage] < depth:
            batch = blocked[stage].popleft()
            inside[stage] += 1
            hop = hops[stage]
            wait(hop.link if hop.link and hop.move_seconds else hop.device, stage, batch, now)

    admit(0, 0.0)
    while events:
        now, _, kind, stage, batch = heapq.heappop(events)
        hop = hops[stage]
        where = hop.link if kind == "transfer" else hop.device
        idle[where] = True
        if kind == "transfer":
            wait(hop.device, stage, batch, now)
        else:
            inside[stage] -= 1
            if stage + 1 < len(hops):
                blocked[stage + 1].append(batch)
                admit(stage + 1, now)
            else:
                done.append(now)
            admit(stage, now)
        start(where, now)
    busy = busy_seconds(steps)
    seconds = max(done)
    work = sum(busy[hop.device] for hop in hops)
    bubble = 1 - work / (seconds * len(hops)) if seconds else 0.0
    first, last = len(done) // 4, len(done) - 1
    pace = (done[last] - done[first]) / (last - first) if last > first else seconds
    limit = max(busy, key=lambda name: busy[name])
    return Simulation(tuple(steps), seconds, bubble, pace, limit)


def hops_of(problem: Problem, cut: Cut, *, shared_link: str = "") -> list[Hop]:
    """The stages of a cut; ``shared_link`` names one link that all transfers go over."""
    found, before = [], problem.host
    for stage in cut.stages:
        link = shared_link or link_name(before, stage.device)
        moved = stage.taken_bytes
        hop = Hop(stage.device, stage.compute_seconds, link, stage.take_seconds, moved)
        found.append(hop)
        before = stage.device
    return found


@dataclass(frozen=True)
class Scale:
    """A pipeline on ``devices`` equal devices, beside one of them."""

    devices: int
    cut: Cut
    simulation: Simulation
    times: float


def scaling(
    problem: Problem,
    device: str,
    counts: Sequence[int],
    *,
    micro_batches: int,
    latency_seconds: float,
    bytes_per_second: float,
    shared_link: str = "",
    depth: int = 2,
) -> tuple[Scale, ...]:
    """What more devices like ``device`` would bring, by simulation from its measured costs.

    ``times`` is the throughput over that of one device, bubble and links counted.
    """
    found = []
    alone = sum(node.seconds.get(device, 0.0) for node in problem.nodes) * micro_batches
    for count in counts:
        many = on_equal_devices(
            problem,
            device,
            count,
            latency_seconds=latency_seconds,
            bytes_per_second=bytes_per_second,
        )
        cut = cut_stages(many, [d.name for d in many.devices], overlap=True, depth=depth)
        run = simulate(hops_of(many, cut, shared_link=shared_link), micro_batches, depth=depth)
        found.append(Scale(count, cut, run, alone / run.seconds))
    return tuple(found)


def _check(hops: Sequence[Hop], micro_batches: int, depth: int) -> None:
    devices = [hop.device for hop in hops]
    if not hops or len(hops) > MOST_DEVICES:
        raise PlacementError(f"a simulation has 1 to {MOST_DEVICES} stages, got {len(hops)}")
    if len(set(devices)) != len(devices):
        raise PlacementError("each stage of a simulation has a device of its own")
    if micro_batches < 1 or depth < 1:
        raise PlacementError(
            f"micro_batches and depth are 1 or more, got {micro_batches} and {depth}"
        )
    if clash := sorted({hop.link for hop in hops} & set(devices)):
        raise PlacementError(f"{clash[0]!r} is the name of a device and of a link; rename one")
