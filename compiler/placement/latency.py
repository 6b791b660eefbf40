"""How long a call of a model will take, from the times of its operators and links alone."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from burnish.compiler.artifact import cache_folder
from burnish.compiler.cache_key import source_digest, versions
from burnish.compiler.errors import ConfigError
from burnish.compiler.measure import ArtifactRunner, MeasureService, Timing, describe_machine
from burnish.compiler.measure.cache import TimingCache
from burnish.compiler.placement.costs import CostModel, OperatorTime
from burnish.compiler.placement.links import measured_links
from burnish.compiler.placement.model_problem import Links, Progress
from burnish.compiler.placement.operators import Operator, Operators, operators_of
from burnish.compiler.stages import Optimized
from burnish.targets.hetero import HOST, HeteroTarget
from burnish.targets.target import CpuTarget

CALL_ROUNDS = 5
Calls = list[tuple[Operator, float]]


@dataclass(frozen=True)
class Latency:
    """Seconds of a call: of its operators on each device, of transfers, and of the call itself.

    ``error`` is by how much the sum may be off, in seconds, operators' errors taken as apart from
    each other, branches as either side.
    """

    devices: Mapping[str, float]
    transfers: float
    call: float
    error: float

    @property
    def seconds(self) -> float:
        """The whole."""
        return sum(self.devices.values()) + self.transfers + self.call

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
    if isinstance(target, HeteroTarget) and target.concurrent:
        raise ConfigError(
            f"latency is not predicted for {target.name!r}, whose devices work at the same time: "
            'compile with placement="auto", whose report says what is expected'
        )
    try:
        found = operators_of(optimized.mod)
    except ValueError as error:
        raise ConfigError(f"latency cannot be predicted: {error}") from error
    if found.others:
        raise ConfigError(
            f"latency cannot be predicted: the model calls {', '.join(sorted(set(found.others)))}, "
            "which are no kernels that could be timed alone"
        )
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
    moved = _transfers(found, optimized, links)
    call = call_seconds(target, _leaves(optimized))
    away = isinstance(target, HeteroTarget) and any(
        target.place(name).memory != HOST for name in spent
    )
    if away or found.uncertain:
        # Such calls are not recorded: the virtual machine starts each kernel.
        call += dispatch_seconds() * sum(count for _, count in found.calls)
    return Latency(spent, moved, call, math.sqrt(variance))


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
    known = links(target)
    memory = {place.name: place.memory for place in target.places}
    memory[HOST] = HOST
    cost = {(memory[one.source], memory[one.target]): one for one in known}
    return sum(cost[move.source, move.target].seconds(move.bytes) for move in found.moves)


def _leaves(optimized: Optimized) -> int:
    return len(optimized.signature.inputs) + len(optimized.signature.outputs)


class _Halves(torch.nn.Module):
    """As many outputs as inputs."""

    def forward(self, *given: torch.Tensor) -> Any:
        made = tuple(torch.relu(one) for one in given)
        return made[0] if len(made) == 1 else made


class _Products(torch.nn.Module):
    """``count`` small kernels, one after another."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            *(torch.nn.Linear(16, 16, bias=False) for _ in range(count))
        )

    def forward(self, x: torch.Tensor) -> Any:
        return self.layers(x)


def call_seconds(
    target: Any, leaves: int, *, cache_dir: str | os.PathLike[str] | None = None
) -> float:
    """What a call costs beside its kernels on this machine, for inputs and outputs in number.

    From two networks of nothing but the smallest kernels, one with one input and output, one with
    four of each; kept between runs.
    """
    if not isinstance(target, HeteroTarget | CpuTarget):
        target = target.host
    spent = [
        _call_s(_Halves(), [torch.ones(1, 16)] * count, target, f"halves {count}", cache_dir)
        for count in (1, 4)
    ]
    each = max(0.0, (spent[1] - spent[0]) / 6)
    return max(0.0, spent[0] - 2 * each) + leaves * each


MANY = 17


def dispatch_seconds(*, cache_dir: str | os.PathLike[str] | None = None) -> float:
    """What the virtual machine takes to start a kernel of a CPU, over a recorded call's.

    From one and :data:`MANY` small kernels, each way; kept between runs.
    """
    spent = {
        (target, count): _call_s(
            _Products(count), [torch.ones(1, 16)], target, f"products {count}", cache_dir
        )
        for target in ("cpu", "hetero:cpu,cpu:1")
        for count in (1, MANY)
    }
    slopes = [
        (spent[target, MANY] - spent[target, 1]) / (MANY - 1)
        for target in ("cpu", "hetero:cpu,cpu:1")
    ]
    return max(0.0, slopes[1] - slopes[0])


def _call_s(
    net: torch.nn.Module,
    given: list[torch.Tensor],
    target: Any,
    what: str,
    cache_dir: str | os.PathLike[str] | None,
) -> float:
    """Seconds of a call of a network, taken once."""
    cache = TimingCache(cache_dir or cache_folder() / "calls")
    parts = {
        "call": what,
        "target": str(target),
        "cpu": describe_machine()["cpu"],
        "sources": source_digest(("runtime", "targets")),
        "versions": versions(),
    }
    key = TimingCache.key(**parts)
    timing = cache.get(key)
    if timing is None:
        timing = _call_timing(net, given, target)
        cache.put_all({key: {**parts, "timing": timing.to_dict()}})
    return timing.p50 / 1e3


def _call_timing(net: torch.nn.Module, given: list[torch.Tensor], target: Any) -> Timing:
    from burnish.compiler import driver

    compiled = driver.compile(net.eval(), tuple(given), target=target, cache=False)
    with (
        tempfile.TemporaryDirectory(prefix="burnish-call-") as folder,
        MeasureService(1) as service,
    ):
        runner = ArtifactRunner(compiled.save(f"{folder}/call.burnish"))
        inputs = tuple(np.asarray(one) for one in given)
        return service.take_turns({"call": runner}, inputs, rounds=CALL_ROUNDS, budget_s=2.0)[
            "call"
        ]
