"""What the operators of a graph cost on a stage's device, and where that cuts it.

The groups, their costs and what flows are those of placement
(:mod:`burnish.compiler.placement.model_problem`). Costs are measured there, each operator alone
and once a machine, or counted here: the larger of the time of its operations and of its bytes at
the machine's peak rates. The model itself is never timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import tvm
from tvm import relax

from burnish.compiler.bench.peaks import Peaks, known_peaks
from burnish.compiler.config import CompileConfig
from burnish.compiler.driver import target_for
from burnish.compiler.errors import ConfigError
from burnish.compiler.pipelines.core_sets import CoreSet
from burnish.compiler.placement.costs import CostModel, OperatorTime
from burnish.compiler.placement.groups import groups_of
from burnish.compiler.placement.micro_batches import choose_micro_batches
from burnish.compiler.placement.model_problem import model_problem
from burnish.compiler.placement.operators import Operator
from burnish.compiler.placement.problem import Device, Link, Node, Problem
from burnish.compiler.placement.stages import Cut, cut_stages
from burnish.targets.choose import Target
from burnish.targets.hetero import HeteroTarget

COSTS = {
    "measured": "times of the operators, each measured alone",
    "counted": "operations and bytes of the operators at the machine's peak rates",
}
REACHED = 0.75
"""Of the peak rate, what products reach."""
SCALAR = 1 / 8
"""Of the peak rate, what other arithmetic reaches; a transcendental is ``HEAVY`` operations."""
HEAVY = 10
KERNEL_S = 1.5e-6
"""Starting a kernel."""
UNSURE = 0.5
"""The share by which a counted time may be off."""
DEPTH = 2
"""Micro-batches at a stage: one that it works on, and one that waits."""
MOST_MICRO_BATCHES = 64

Said = Callable[[str], None]
DEFAULT = CompileConfig()


class CountedCosts(CostModel):
    """Times from what a kernel does at the least; nothing is measured."""

    def __init__(self, peaks: Peaks) -> None:
        self._peaks = peaks

    def measure(self, operators: Iterable[Operator], target: Target, **_: object) -> int:
        """Nothing is to be done."""
        return 0

    def times(
        self, operators: Iterable[Operator], target: Target
    ) -> tuple[dict[str, OperatorTime], list[Operator]]:
        """The time of each by signature."""
        return {one.signature: self._time(one) for one in operators}, []

    def _time(self, operator: Operator) -> OperatorTime:
        kernel = operator.record()
        work = kernel.work([shape for shape, _ in operator.arguments])
        rate = self._peaks.fp32 * 1e9
        other = (work.elementwise or 0) + HEAVY * (work.transcendental or 0)
        spent = (work.flops or 0) / (REACHED * rate) + other / (SCALAR * rate)
        seconds = max(spent, work.bytes / (self._peaks.read * 1e9)) + KERNEL_S
        return OperatorTime(seconds, seconds, UNSURE)


def stage_names(devices: Sequence[CoreSet]) -> tuple[str, ...]:
    """The devices' names, a repeated one with its number: ``cpu``, ``cpu#2``."""
    found: list[str] = []
    for device in devices:
        again = sum(name.partition("#")[0] == device.name for name in found)
        found.append(f"{device.name}#{again + 1}" if again else device.name)
    return tuple(found)


def stage_problem(
    graph: tvm.IRModule,
    devices: Sequence[CoreSet],
    settings: CompileConfig = DEFAULT,
    target: str = "cpu",
    costs: str = "measured",
    handoff_s: float = 1e-4,
    said: Said = lambda text: None,
) -> Problem:
    """The graph's groups on each device, linked by memory; limits are ``settings.memory``.

    Raises :class:`ConfigError` for a limit of a device that is none, and for a graph with branches
    or open sizes.
    """
    names = stage_names(devices)
    unknown = sorted(set(settings.memory) - set(names))
    if unknown:
        raise ConfigError(f"memory of {unknown}: the devices are {', '.join(names)}")
    found: dict[int, Problem] = {}
    bare = replace(settings, memory={}, placement={})
    for threads in {device.threads for device in devices}:
        place = target_for(f"hetero:{target}", replace(bare, threads=threads))
        assert isinstance(place, HeteroTarget)
        model = CountedCosts(known_peaks(threads)) if costs == "counted" else CostModel()
        found[threads] = model_problem(
            graph, place, replace(bare, threads=threads), model, links=lambda _: (),
            progress=lambda done, total, doing: said(f"{doing}, {done} of {total}"),
        ).problem  # fmt: skip
    first = found[devices[0].threads]
    nodes = []
    for at, node in enumerate(first.nodes):
        seconds = {
            name: next(iter(found[device.threads].nodes[at].seconds.values()))
            for name, device in zip(names, devices, strict=True)
        }
        nodes.append(replace(node, seconds=seconds, reasons={}))
    rate = min(known_peaks(threads).read for threads in found) * 1e9
    links = [Link(a, b, handoff_s, rate) for a in names for b in names if a != b]
    return replace(
        first,
        nodes=tuple(nodes),
        devices=tuple(Device(name, settings.memory.get(name)) for name in names),
        links=tuple(links),
        host=names[0],
        pins={},
    )


def at_share(problem: Problem, share: float) -> Problem:
    """The problem with ``share`` of the rows: less of everything but what weights cost to read."""
    rate = max((link.bytes_per_second for link in problem.links), default=math.inf)

    def scaled(node: Node) -> Node:
        weights = sum(node.weights.values()) + node.weight_bytes
        seconds = {
            name: max(share * taken, min(taken, weights / rate + KERNEL_S))
            for name, taken in node.seconds.items()
        }
        return replace(
            node,
            seconds=seconds,
            output_bytes=math.ceil(share * node.output_bytes),
            work_bytes=math.ceil(share * node.work_bytes),
        )

    return replace(
        problem,
        nodes=tuple(map(scaled, problem.nodes)),
        edges=tuple(replace(e, bytes=math.ceil(share * e.bytes)) for e in problem.edges),
        inputs=tuple(replace(i, bytes=math.ceil(share * i.bytes)) for i in problem.inputs),
        outputs=tuple(replace(o, bytes=math.ceil(share * o.bytes)) for o in problem.outputs),
    )


@dataclass(frozen=True)
class Chosen:
    """A number of micro-batches, and why."""

    micro_batches: int
    why: str


def chosen_number(problem: Problem, batch: int, devices: Sequence[CoreSet]) -> Chosen:
    """Into how many micro-batches a batch, whose costs the problem has, is split.

    More of them fill the pipeline sooner, and each reads all weights and is handed over again.
    """
    counts = [n for n in range(1, min(batch, MOST_MICRO_BATCHES) + 1) if batch % n == 0]
    problems = {batch // n: at_share(problem, 1 / n) for n in counts}
    best, options = choose_micro_batches(problems, batch, stage_names(devices), depth=DEPTH)
    said = ", ".join(
        f"{one.micro_batches}: {1e3 * one.seconds:.3g}"
        for one in sorted(options, key=lambda one: one.micro_batches)
    )
    return Chosen(best.micro_batches, f"expected milliseconds a batch by their number: {said}")


def stages_of(
    graph: tvm.IRModule, problem: Problem, devices: Sequence[CoreSet]
) -> tuple[Cut, Mapping[relax.Var, int]]:
    """The best cut, and the stage of each binding that a group has."""
    names = stage_names(devices)
    cut = cut_stages(problem, names, depth=DEPTH)
    stage = {node: at for at, one in enumerate(cut.stages) for node in one.nodes}
    found: dict[relax.Var, int] = {}
    for node, group in zip(problem.nodes, groups_of(graph), strict=True):
        for binding in group.bindings:
            # What weights alone decide is in every group that reads it: the first one counts.
            found[binding.var] = min(stage[node.name], found.get(binding.var, stage[node.name]))
    return cut, found
