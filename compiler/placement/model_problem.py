"""The placement problem of a model: its groups, what they cost on each device, what flows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import ConfigError
from burnish.compiler.optimizer import lowered
from burnish.compiler.pipeline import graph_phases
from burnish.compiler.placed import seconds_of, supports
from burnish.compiler.placement.costs import CostModel, OperatorTime
from burnish.compiler.placement.groups import Group, group_key, group_module, groups_of
from burnish.compiler.placement.links import measured_links
from burnish.compiler.placement.operators import Operator, Operators, operators_of
from burnish.compiler.placement.problem import Device, Edge, Input, Link, Node, Output, Problem
from burnish.passes.params import get_params, input_vars
from burnish.passes.place import AUTO, chosen_by, operator
from burnish.passes.place import Node as Placed
from burnish.passes.place import nodes as placed_nodes
from burnish.passes.regions import Region
from burnish.passes.support import Support
from burnish.targets.hetero import HOST, HeteroTarget, Place
from burnish.targets.target import CpuTarget

MOVED = frozenset(("transpose", "layout_transform"))
"""Kernels of a group that do nothing else are those of its border: in the model they are none."""
Progress = Callable[[int, int, str], object]
Links = Callable[[HeteroTarget], tuple[Link, ...]]


@dataclass(frozen=True)
class ModelProblem:
    """The problem, the bindings of each node by name, and by how much node times may be off.

    ``members`` are names of variables of ``main``, as ``placement`` of a configuration takes them;
    ``errors`` shares of the node's time, by node and device.
    """

    problem: Problem
    members: Mapping[str, tuple[str, ...]]
    errors: Mapping[tuple[str, str], float]

    def bindings(self, assignment: Mapping[str, str]) -> dict[str, str]:
        """The device of each binding, for the device of each node."""
        return {name: assignment[node] for node, names in self.members.items() for name in names}


def model_problem(
    graph: tvm.IRModule,
    target: HeteroTarget,
    config: CompileConfig,
    costs: CostModel,
    *,
    links: Links = measured_links,
    progress: Progress = lambda done, total, doing: None,
) -> ModelProblem:
    """The problem of placing ``graph`` (before it is cut) on the devices of ``target``.

    Operators that were not timed on a device before are timed now. Limits are ``config.memory``.
    Raises ConfigError for a graph that is not cut by measured cost: with open sizes, or branches.
    """
    try:
        groups = groups_of(graph, branches=target.concurrent)
    except ValueError as error:
        raise ConfigError(f"placement by cost: {error}; give the placement by names") from error
    support = supports(target)
    known: dict[str, dict[int, Operators]] = {place.name: {} for place in target.places}
    keys: list[int] = []
    for group in groups:
        own = {kind: group_module(graph, group, channels_last=kind) for kind in (False, True)}
        keys.append(group_key(own[False]))
        for place in target.places:
            if place.backend or keys[-1] in known[place.name]:
                continue
            if not _why_not(group, support[place.name]):
                known[place.name][keys[-1]] = _operators(own[True], place, config)
    times = {
        place.name: _timed(place, known[place.name], costs, progress) for place in target.places
    }
    weight_bytes = sum(value.numpy().nbytes for value in get_params(graph).values())
    nodes, errors = [], {}
    for group, key in zip(groups, keys, strict=True):
        seconds, reasons = {}, {}
        for place in target.places:
            why = _why_not(group, support[place.name])
            told = seconds_of(place, _region(group)) if place.backend and not why else None
            if place.backend and told is None:
                why = why or "it does not tell what it takes: put operators there by name"
            if why:
                reasons[place.name] = why
                continue
            if told is not None:
                seconds[place.name], errors[group.name, place.name] = told, 0.0
                continue
            found = known[place.name][key]
            taken, off = _seconds(found, times[place.name], place, weight_bytes)
            seconds[place.name] = taken
            errors[group.name, place.name] = off
        weights = {str(var.name): _bytes(var) for var in group.weights}
        operator = ", ".join(dict.fromkeys(group.operators))
        size = sum(map(_bytes, group.outputs))
        nodes.append(
            Node(group.name, operator, seconds, reasons, weights=weights, output_bytes=size)
        )
    placed = {node.name for node in placed_nodes(graph)}
    members = {
        group.name: tuple(n for b in group.bindings if (n := str(b.var.name)) in placed)
        for group in groups
    }
    problem = _problem(graph, groups, nodes, target, links(target), config)
    return ModelProblem(problem, members, errors)


def _region(group: Group) -> Region:
    """The group as a code generator of another sees it."""
    return Region(group.bindings, (*group.inputs, *group.weights), group.outputs)


def _why_not(group: Group, support: Support) -> str:
    for binding in group.bindings:
        if isinstance(binding.value, relax.Call | relax.If):
            why = support.why_not(binding.value)
            if why:
                return why
    return ""


def _operators(mod: tvm.IRModule, place: Place, config: CompileConfig) -> Operators:
    try:
        return operators_of(lowered(mod, place.target, graph_phases(place.target, config)))
    except ValueError as error:
        raise ConfigError(f"placement by cost: {error}") from error


def _timed(
    place: Place, known: Mapping[int, Operators], costs: CostModel, progress: Progress
) -> dict[str, OperatorTime]:
    needed = [op for found in known.values() for op, _ in (*found.calls, *found.uncertain)]
    kept = [op for op in needed if not _border(op)]
    costs.measure(
        kept,
        place.target,
        progress=lambda done, total, doing: progress(done, total, f"{place.name}: {doing}"),
    )
    return costs.times(kept, place.target)[0]


def _border(operator: Operator) -> bool:
    return set(operator.record().operators) <= MOVED


def _seconds(
    found: Operators, times: Mapping[str, OperatorTime], place: Place, held: int
) -> tuple[float, float]:
    cache = place.target.l3 if isinstance(place.target, CpuTarget) else 0
    taken, variance = 1e-9, 0.0
    for one, count in found.calls:
        if one.signature not in times:
            continue
        time = times[one.signature]
        each = count * time.seconds(held, cache)
        taken += each
        variance += (each * time.error) ** 2
    return taken, math.sqrt(variance) / taken


def _bytes(var: relax.Var) -> int:
    pending, total = [var.ty], 0
    while pending:
        ty = pending.pop()
        if isinstance(ty, relax.TupleType):
            pending.extend(ty.fields)
        elif isinstance(ty, relax.TensorType) and ty.shape is not None:
            sizes = [int(n) for n in ty.shape]
            total += math.prod(sizes) * int(tvm.DataType(str(ty.dtype)).itemsize)
    return total


def _problem(
    graph: tvm.IRModule,
    groups: tuple[Group, ...],
    nodes: list[Node],
    target: HeteroTarget,
    links: tuple[Link, ...],
    config: CompileConfig,
) -> Problem:
    main = graph["main"]
    made = {var: group for group in groups for var in group.outputs}
    edges: list[Edge] = []
    readers: dict[relax.Var, list[str]] = {}
    for group in groups:
        for var in group.inputs:
            if var in made:
                source = made[var].name
                edges.append(Edge(source, group.name, _bytes(var), value=str(var.name)))
            else:
                readers.setdefault(var, []).append(group.name)
    inputs = [
        Input(str(var.name), _bytes(var), tuple(readers.get(var, ())))
        for var in input_vars(graph)
        if isinstance(var.ty, relax.TensorType)
    ]
    returned = dict.fromkeys(relax.analysis.free_vars(main.body.body))
    outputs = [Output(made[v].name, _bytes(v), str(v.name)) for v in returned if v in made]
    host = next((place.name for place in target.places if place.memory == HOST), "")
    limits = dict(config.memory)
    devices = [Device(place.name, limits.get(place.name)) for place in target.places]
    if not host:
        host = HOST
        devices.append(Device(HOST))
    return Problem(
        tuple(nodes),
        tuple(devices),
        tuple(edges),
        links,
        tuple(inputs),
        tuple(outputs),
        host=host,
        pins=_pins(groups, nodes, config.placement),
    )


def _pins(
    groups: tuple[Group, ...], nodes: list[Node], placement: Mapping[str, str]
) -> dict[str, str]:
    """The device of a group that the user put there by name, an operator or a glob of either."""
    pins: dict[str, str] = {}
    for group, node in zip(groups, nodes, strict=True):
        wanted = {}
        for binding in group.bindings:
            if not isinstance(binding.value, relax.Call | relax.If):
                continue
            one = Placed(str(binding.var.name), operator(binding.value), binding.value)
            pattern = chosen_by(one, placement)
            if pattern is not None and placement[pattern] != AUTO:
                wanted[placement[pattern]] = one.name
        if len(wanted) > 1:
            raise ConfigError(
                f"placement puts {' and '.join(wanted.values())} on different devices, and they "
                "are one kernel: place by cost keeps them together; put both on one device"
            )
        if wanted:
            pins[node.name] = next(iter(wanted))
    return pins
