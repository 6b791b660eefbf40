"""How long a call of a model will take, from the times of its operators and links alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm

from burnish.compiler.errors import ConfigError
from burnish.compiler.placement.costs import CostModel, OperatorTime
from burnish.compiler.placement.links import measured_links
from burnish.compiler.placement.model_problem import Links, Progress
from burnish.compiler.placement.operators import Operator, Operators, operators_of
from burnish.compiler.placement.overheads import (
    call_seconds,
    dispatch_seconds,
    start_seconds,
    turn_seconds,
)
from burnish.compiler.placement.problem import Link
from burnish.compiler.placement.queues import Step, beside_host, queued_seconds, steps_in_order
from burnish.compiler.placement.side_by_side import regions_in_order, schedule
from burnish.compiler.stages import Optimized
from burnish.passes.region_modules import region_module
from burnish.targets.hetero import HOST, PREFIX, HeteroTarget
from burnish.targets.target import CpuTarget

Calls = list[tuple[Operator, float]]


@dataclass(frozen=True)
class Latency:
    """Seconds of a call: of its operators on each device, of transfers, and of the call itself.

    ``error`` is by how much the sum may be off, in seconds, operators' errors taken as apart from
    each other, branches as either side. ``elapsed`` is, where devices work at the same time, what
    they, what they wait for and ``transfers`` take together.
    """

    devices: Mapping[str, float]
    transfers: float
    call: float
    error: float
    elapsed: float | None = None

    @property
    def seconds(self) -> float:
        """The whole."""
        in_turns = sum(self.devices.values()) + self.transfers
        return (in_turns if self.elapsed is None else self.elapsed) + self.call

    def to_dict(self) -> dict[str, Any]:
        """Plain data in milliseconds."""
        return {
            "ms": 1e3 * self.seconds,
            "devices_ms": {name: 1e3 * value for name, value in self.devices.items()},
            "transfers_ms": 1e3 * self.transfers,
            "call_ms": 1e3 * self.call,
            "error_ms": 1e3 * self.error,
        }


def predict_latency(
    optimized: Optimized,
    costs: CostModel | None = None,
    *,
    links: Links = measured_links,
    progress: Progress = lambda done, total, doing: None,
) -> Latency:
    """The latency of a model as it will be built, one device or several.

    Operators that were not timed before are timed now, each alone; the model itself is never
    run. Raises ConfigError for open sizes, and for functions that are no kernels of ours.
    """
    model, target = costs or CostModel(), optimized.target
    try:
        found = operators_of(optimized.mod)
    except ValueError as error:
        raise ConfigError(f"latency cannot be predicted: {error}") from error
    if found.others:
        raise ConfigError(
            f"latency cannot be predicted: the model calls {', '.join(sorted(set(found.others)))}, "
            "which are no kernels that could be timed alone"
        )
    arrays = any(isinstance(one, np.ndarray) for one in optimized.source.example_inputs)
    spent: dict[str, float] = {}
    variance = 0.0
    for device, one, calls in _by_device(found, target):
        operators = [operator for operator, _ in calls]
        model.measure(operators, one, progress=progress)
        times, _ = model.times(operators, one)
        cache = one.l3 if isinstance(one, CpuTarget) else 0
        seconds, squares = _sum(calls, times, found.weight_bytes, cache)
        spent[device] = seconds
        variance += squares
        apart = [(op, side) for op, side in found.uncertain if op.device in ("", device)]
        variance += abs(_sum(apart, times, found.weight_bytes, cache)[0]) ** 2
    cores = isinstance(target, HeteroTarget) and target.concurrent
    on = {region.device for region in regions_in_order(optimized.mod)} if cores else set()
    if isinstance(target, HeteroTarget) and len(on) > 1:
        elapsed = _together(optimized.mod, target, model, found.weight_bytes)
        call = start_seconds(_leaves(optimized), arrays=arrays)
        return Latency(spent, 0.0, call, math.sqrt(variance), elapsed)
    away = (
        any(target.place(name).memory != HOST for name in spent)
        if isinstance(target, HeteroTarget)
        else not isinstance(target, CpuTarget)
    )
    recorded = not (away or found.uncertain)
    where = f"{PREFIX}{next(iter(on))}" if on else target
    call = call_seconds(where, _leaves(optimized), recorded=recorded, arrays=arrays)
    moved = _transfers(found, optimized, links)
    if isinstance(target, HeteroTarget) and not found.uncertain:
        through = _through_queues(optimized.mod, target, model, found.weight_bytes, links)
        if through is not None:
            return Latency(spent, moved, call, math.sqrt(variance), through)
    if not recorded:
        # The virtual machine starts each kernel.
        call += dispatch_seconds() * sum(count for _, count in found.calls)
    return Latency(spent, moved, call, math.sqrt(variance))


def _together(mod: tvm.IRModule, target: HeteroTarget, model: CostModel, held: int) -> float:
    """Seconds until the last region of devices that work at the same time has ended."""
    order, start = regions_in_order(mod), dispatch_seconds()
    regions = _regions(mod, target, model, held)
    taken = {name: seconds + count * start for name, (seconds, count) in regions.items()}
    return schedule(order, taken, turn_seconds())


def _through_queues(
    mod: tvm.IRModule, target: HeteroTarget, model: CostModel, held: int, links: Links
) -> float | None:
    """Seconds until all is done where devices work while the host goes on; None where none does."""
    beside = beside_host(target)
    if not beside:
        return None
    start, cost = dispatch_seconds(), _links_by_memory(target, links)
    regions = _regions(mod, target, model, held)

    def seconds(step: Step) -> float:
        if step.region:
            return regions[step.region][0]
        return cost[step.memory, step.target].seconds(step.bytes)

    def begin(step: Step) -> float:
        return regions[step.region][1] * start

    steps = steps_in_order(mod, lambda device: target.place(device).memory)
    return queued_seconds(steps, beside, seconds, begin)


def _regions(
    mod: tvm.IRModule, target: HeteroTarget, model: CostModel, held: int
) -> dict[str, tuple[float, float]]:
    """Seconds of the kernels of each region, and their number."""
    found: dict[str, tuple[float, float]] = {}
    for region in regions_in_order(mod):
        one = target.place(region.device).target
        calls = list(operators_of(region_module(mod, region.function)).calls)
        model.measure([operator for operator, _ in calls], one)
        times, _ = model.times([operator for operator, _ in calls], one)
        cache = one.l3 if isinstance(one, CpuTarget) else 0
        count = sum(count for _, count in calls)
        found[region.name] = _sum(calls, times, held, cache)[0], count
    return found


def _by_device(found: Operators, target: Any) -> list[tuple[str, Any, Calls]]:
    if not isinstance(target, HeteroTarget):
        return [(target.name, target, list(found.calls))]
    grouped: dict[str, Calls] = {}
    for operator, count in found.calls:
        grouped.setdefault(operator.device, []).append((operator, count))
    return [(name, target.place(name).target, calls) for name, calls in grouped.items()]


def _sum(
    calls: Sequence[tuple[Operator, float]],
    times: Mapping[str, OperatorTime],
    held: int,
    cache: int,
) -> tuple[float, float]:
    seconds = variance = 0.0
    for operator, count in calls:
        time = times[operator.signature]
        each = count * time.seconds(held, cache)
        seconds += each
        variance += (each * time.error) ** 2
    return seconds, variance


def _transfers(found: Operators, optimized: Optimized, links: Links) -> float:
    target = optimized.target
    if not isinstance(target, HeteroTarget):
        return 0.0
    cost = _links_by_memory(target, links)
    return sum(cost[move.source, move.target].seconds(move.bytes) for move in found.moves)


def _links_by_memory(target: HeteroTarget, links: Links) -> dict[tuple[str, str], Link]:
    memory = {place.name: place.memory for place in target.places}
    memory[HOST] = HOST
    return {(memory[one.source], memory[one.target]): one for one in links(target)}


def _leaves(optimized: Optimized) -> int:
    return len(optimized.signature.inputs) + len(optimized.signature.outputs)
