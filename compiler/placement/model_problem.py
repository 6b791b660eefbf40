"""The placement problem of a model: its groups, what they cost on each device, what flows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tvm
from tvm import relax

from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import ConfigError, wrap_errors
from burnish.compiler.optimizer import lowered
from burnish.compiler.pipeline import graph_phases, narrowing
from burnish.compiler.placed import seconds_of, supports
from burnish.compiler.placement.costs import CostModel, OperatorTime
from burnish.compiler.placement.groups import Group, group_key, group_module, groups_of
from burnish.compiler.placement.links import host_of, measured_links
from burnish.compiler.placement.operators import Operator, Operators, operators_of
from burnish.compiler.placement.problem import Device, Edge, Input, Link, Node, Output, Problem
from burnish.passes.params import get_params, input_vars
from burnish.passes.place import AUTO, check_names, chosen_by
from burnish.passes.place import nodes as placed_nodes
from burnish.passes.regions import Region
from burnish.passes.support import Support
from burnish.targets.hetero import HOST, HeteroTarget, Place
from burnish.targets.target import CpuTarget

MOVED = frozenset(("transpose", "layout_transform"))
"""Kernels of a group that do nothing else are those of its border: in the model they are none."""
NO_COST = "no cost is known: never chosen by auto, put operators there by name"
"""Why a device that could run an operator is not chosen for it."""
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

    Operators that were not timed on a device before are timed now. Limits are ``config.memory``;
    what ``config.placement`` gives a device is placed there.
    Raises ConfigError for a graph that is not cut by measured cost: with open sizes, or branches,
    and for a placement as :func:`burnish.passes.place.check_names` does.
    """
    support = supports(target)
    _check_static(graph)
    to_place = placed_nodes(graph)
    with wrap_errors(ConfigError):
        check_names(to_place, config.placement, support)
    patterns = {node.name: chosen_by(node, config.placement) for node in to_place}
    devices = {name: config.placement[one] for name, one in patterns.items() if one is not None}
    pins = {name: device for name, device in devices.items() if device != AUTO}
    try:
        groups = groups_of(graph, branches=target.concurrent, pins=pins)
    except ValueError as error:
        raise ConfigError(f"placement by cost: {error}; give the placement by names") from error
    known: dict[str, dict[int, Operators]] = {place.name: {} for place in target.places}
    keys: list[int] = []
    for group in groups:
        own = {kind: group_module(graph, group, channels_last=kind) for kind in (False, True)}
        keys.append(group_key(own[False]))
        for place in target.places:
            if _told(place) or keys[-1] in known[place.name]:
                continue
            if not _why_not(group, support[place.name]):
                known[place.name][keys[-1]] = _operators(own[True], place, config)
    times = {
        place.name: _timed(place, known[place.name], costs.of(place), progress)
        for place in target.places
    }
    weight_bytes = sum(value.numpy().nbytes for value in get_params(graph).values())
    start = costs.start_seconds() if target.concurrent else 0.0
    nodes, errors = [], {}
    for group, key in zip(groups, keys, strict=True):
        seconds, reasons = {}, {}
        for place in target.places:
            why = _why_not(group, support[place.name])
            told = seconds_of(place, _region(group)) if _told(place) and not why else None
            if _told(place) and told is None:
                why = why or NO_COST
            if why:
                reasons[place.name] = why
                continue
            if told is not None:
                seconds[place.name], errors[group.name, place.name] = told, 0.0
                continue
            found = known[place.name][key]
            taken, off = _seconds(found, times[place.name], place, weight_bytes, start)
            seconds[place.name] = taken
            errors[group.name, place.name] = off
        if not any(place.memory == HOST for place in target.places):
            reasons[HOST] = "the target does not name it"
        weights = {str(var.name): _bytes(var) for var in group.weights}
        operator = ", ".join(dict.fromkeys(group.operators))
        size = sum(map(_bytes, group.outputs))
        nodes.append(
            Node(group.name, operator, seconds, reasons, weights=weights, output_bytes=size)
        )
    members = {
        group.name: tuple(n for b in group.bindings if (n := str(b.var.name)) in patterns)
        for group in groups
    }
    of_groups = {
        group: next(pins[name] for name in names if name in pins)
        for group, names in members.items()
        if not pins.keys().isdisjoint(names)
    }
    problem = _problem(graph, groups, nodes, target, links(target), config, of_groups)
    return ModelProblem(problem, members, errors)


def _check_static(graph: tvm.IRModule) -> None:
    """Refuse open sizes before anything is timed."""
    sizes = sorted({str(size) for size in relax.analysis.free_symbolic_vars(graph["main"])})
    sizes += sorted({str(size) for size in relax.analysis.defined_symbolic_vars(graph["main"])})
    if sizes:
        raise ConfigError(
            f"placement by cost: the model has the open sizes {', '.join(dict.fromkeys(sizes))}, "
            "and times are of known shapes: compile it without dynamic sizes, or give the "
            'placement by names instead of "auto"'
        )


def _told(place: Place) -> bool:
    """Whether a device says itself what it takes; others are measured, wherever they are."""
    return bool(place.backend) and place.there is None


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
        for step in narrowing(place.runs, config.precision):
            mod = step(mod)
        return operators_of(lowered(mod, place.runs, graph_phases(place.runs, config)))
    except ValueError as error:
        raise ConfigError(f"placement by cost: {error}") from error


def _timed(
    place: Place, known: Mapping[int, Operators], costs: CostModel, progress: Progress
) -> dict[str, OperatorTime]:
    needed = [op for found in known.values() for op, _ in (*found.calls, *found.uncertain)]
    kept = [op for op in needed if not _border(op)]
    costs.measure(
        kept,
        place.runs,
        progress=lambda done, total, doing: progress(done, total, f"{place.name}: {doing}"),
    )
    return costs.times(kept, place.runs)[0]


def _border(operator: Operator) -> bool:
    return set(operator.record().operators) <= MOVED


def _seconds(
    found: Operators, times: Mapping[str, OperatorTime], place: Place, held: int, start: float
) -> tuple[float, float]:
    cache = place.runs.l3 if isinstance(place.runs, CpuTarget) else 0
    taken, variance = 1e-9, 0.0
    for one, count in found.calls:
        if one.signature not in times:
            continue
        time = times[one.signature]
        each = count * time.seconds(held, cache)
        taken += each + count * start
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
    pins: Mapping[str, str],
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
    host = host_of(target)
    limits = dict(config.memory)
    devices = [Device(place.name, limits.get(place.name)) for place in target.places]
    if host == HOST and HOST not in target.devices:
        devices.append(Device(HOST))
    return Problem(
        tuple(nodes),
        tuple(devices),
        tuple(edges),
        links,
        tuple(inputs),
        tuple(outputs),
        host=host,
        pins=pins,
    )
