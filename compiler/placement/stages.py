"""Cutting a model into stages of a pipeline: the slowest stage is made as fast as it can be.

Each stage is a run of nodes in the order of the problem. What a later stage needs is handed from
stage to stage, in one message a link; an input comes from the host to the first stage that uses
it, and a result goes from its stage to the host. A stage's time is that of its nodes and of what
it takes in and gives to the host; with ``overlap=True`` it is the longer of the two, where links
work beside the device. Dynamic programming over prefixes: exact for the given order of the nodes
and devices, nodes^2 x stages steps.

Memory of a stage: weights and state, what lives at the worst of its nodes (what is handed on lives
to its end), and ``depth - 1`` micro-batches that wait before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from burnish.compiler.placement.errors import (
    MemoryLimitError,
    NotApplicableError,
    PlacementError,
)
from burnish.compiler.placement.problem import Device, Link, Problem
from burnish.compiler.placement.stage_tables import StageTables
from burnish.compiler.registry import near
from burnish.compiler.report import figures

MOST_ORDERS = 6
"""Devices of which every order is tried."""


@dataclass(frozen=True)
class Stage:
    """Nodes that run on one device, and their times for one micro-batch.

    ``take_seconds`` is what the stage waits for over links: what the stage before and the host
    give it, and what it gives to the host.
    """

    device: str
    nodes: tuple[str, ...]
    compute_seconds: float
    take_seconds: float
    taken_bytes: int
    memory_bytes: int
    overlap: bool = False

    @property
    def seconds(self) -> float:
        if self.overlap:
            return max(self.compute_seconds, self.take_seconds)
        return self.compute_seconds + self.take_seconds


@dataclass(frozen=True)
class Cut:
    """A model as stages, in the order in which a micro-batch passes them."""

    stages: tuple[Stage, ...]

    @property
    def slowest(self) -> float:
        """Seconds of the slowest stage: a micro-batch is done each time they pass."""
        return max(stage.seconds for stage in self.stages)

    @property
    def assignment(self) -> dict[str, str]:
        """Node name to device."""
        return {name: stage.device for stage in self.stages for name in stage.nodes}

    def batch_seconds(self, micro_batches: int) -> float:
        """Seconds of a batch: the first micro-batch through all stages, the rest at the pace of
        the slowest one (exact for equal micro-batches)."""
        return sum(s.seconds for s in self.stages) + (micro_batches - 1) * self.slowest

    def bubble(self, micro_batches: int) -> float:
        """The share of the stages' time in which they wait while a batch runs, 0 to 1."""
        whole = len(self.stages) * self.batch_seconds(micro_batches)
        work = micro_batches * sum(stage.seconds for stage in self.stages)
        return 1 - work / whole if whole else 0.0


def cut_stages(
    problem: Problem,
    devices: Sequence[str],
    *,
    overlap: bool = False,
    depth: int = 2,
    any_order: bool = False,
) -> Cut:
    """One stage for each of ``devices``, in their order (the best one with ``any_order``).

    Pins and groups of the problem hold. Raises :class:`MemoryLimitError` with the smallest excess
    where no cut meets the limits, and :class:`PlacementError` where there is none at all.
    """
    known = [device.name for device in problem.devices]
    for name in devices:
        if name not in known:
            raise PlacementError(f"stages on the unknown device {name!r}{near(name, known)}")
    if not devices or len(set(devices)) != len(devices):
        raise PlacementError(f"stages need devices, each once; got {list(devices)}")
    if len(devices) > len(problem.nodes):
        raise PlacementError(
            f"{len(devices)} stages of a model of {len(problem.nodes)} operators: "
            "give fewer devices"
        )
    if any_order and len(devices) > MOST_ORDERS:
        raise NotApplicableError(
            f"every order is tried of up to {MOST_ORDERS} devices, here are {len(devices)}: give "
            "them in an order and leave any_order out"
        )
    tables = StageTables(problem, depth)
    orders = itertools.permutations(devices) if any_order else [tuple(devices)]
    found = [
        (tables, order, points) for order in orders if (points := _points(tables, order, overlap))
    ]
    if not found:
        raise _impossible(tables, devices)
    cuts = [_cut(*one, overlap) for one in found]
    return min(cuts, key=lambda cut: (cut.slowest, sum(s.seconds for s in cut.stages)))


def _points(tables: StageTables, devices: Sequence[str], overlap: bool) -> list[int] | None:
    """The positions between stages, ends included, with the least slowest stage."""
    costs = [tables.seconds(devices, at, overlap) for at in range(len(devices))]
    costs = [
        np.where(tables.excess(device) > 0, np.inf, cost)
        for device, cost in zip(devices, costs, strict=True)
    ]
    return _best(costs, np.maximum)


def _best(costs: Sequence[np.ndarray], join: np.ufunc) -> list[int] | None:
    """``costs[stage][start, end]`` joined over stages, least: the points, or ``None``."""
    count = costs[0].shape[0] - 1
    best = costs[0][0].copy()
    best[0] = np.inf
    choices = []
    for cost in costs[1:]:
        joined = join(best[:, None], cost)
        choices.append(joined.argmin(0))
        best = joined.min(0)
    if not np.isfinite(best[count]):
        return None
    points = [count]
    for chosen in reversed(choices):
        points.insert(0, int(chosen[points[0]]))
    return [0, *points]


def _cut(tables: StageTables, devices: Sequence[str], points: list[int], overlap: bool) -> Cut:
    names = [node.name for node in tables.problem.nodes]
    stages = []
    for at, (start, end) in enumerate(pairwise(points)):
        stages.append(
            Stage(
                devices[at],
                tuple(names[start:end]),
                float(tables.compute(devices[at])[start, end]),
                float(tables.take(devices, at)[start, end]),
                int(tables.crossing[start] + tables.given[start, end]),
                int(tables.memory[start, end]),
                overlap,
            )
        )
    return Cut(tuple(stages))


def _impossible(tables: StageTables, devices: Sequence[str]) -> PlacementError:
    can = [np.where(np.isfinite(tables.compute(d)), tables.excess(d), np.inf) for d in devices]
    points = _best(can, np.add)
    if points is None:
        return PlacementError(
            f"no cut into {len(devices)} stages on {', '.join(devices)} in this order: operators "
            "cannot run there, or groups and pins leave no place to cut. Give other devices or "
            "another order, or fewer"
        )
    excess, said = {}, []
    for device, (start, end) in zip(devices, pairwise(points), strict=True):
        if over := int(tables.excess(device)[start, end]):
            excess[device] = over
            needed = figures.size(float(tables.memory[start, end]))
            limit = figures.size(tables.problem.limits[device])
            said.append(f"{device} needs {needed} of {limit} ({over:,} bytes over)")
    return MemoryLimitError(
        f"no cut into {len(devices)} stages meets the memory limits: the smallest excess is "
        f"{sum(excess.values()):,} bytes, where {', '.join(said)}. Raise the limits, add a device, "
        "make micro-batches smaller, or make the model smaller (quantize it)",
        excess,
        proven=True,
    )


def on_equal_devices(
    problem: Problem,
    device: str,
    count: int,
    *,
    latency_seconds: float,
    bytes_per_second: float,
    memory_bytes: int | None = None,
) -> Problem:
    """The problem on ``count`` devices that are each like ``device``, all linked alike.

    They are named ``device@0`` and on; the first one is the host.
    """
    names = [f"{device}@{at}" for at in range(count)]
    nodes = []
    for node in problem.nodes:
        seconds = {name: node.seconds[device] for name in names if device in node.seconds}
        reasons = {name: node.reasons[device] for name in names if device in node.reasons}
        nodes.append(replace(node, seconds=seconds, reasons=reasons))
    links = tuple(
        Link(a, b, latency_seconds, bytes_per_second) for a in names for b in names if a != b
    )
    return replace(
        problem,
        nodes=tuple(nodes),
        devices=tuple(Device(name, memory_bytes) for name in names),
        links=links,
        host=names[0],
        pins={},
    )
