"""Dynamic programming over the order of the nodes.

After each node, what matters of all that was decided is the devices of groups that are not
complete, and where each value lies that is still to be used. On a chain that is one device, and
this is the well-known shortest path over (node, device); a graph with branches keeps as many
devices as values are open, so it stays exact while few are. Memory adds to each state the weights
and the peak of each limited device, and keeps the states that no other one dominates in time and
memory both (label setting for constrained shortest paths, Desrochers and Soumis 1988).

What is exact, for the sum of times (``overlap=False``):

1. Without memory limits: any graph, until more than ``most`` states are open; then the fastest few
   are kept, and the answer is no longer called exact.
2. With limits: chains always; other graphs where the answer meets the limits. The search counts a
   copy from the position before its first use, which on a chain is where it is made, and elsewhere
   may be too late; where the answer is over a limit for that, it is refused (use ilp).

With ``overlap=True`` the sum is still what is made least; on a chain it is the latency as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from burnish.compiler.placement.errors import PlacementError
from burnish.compiler.placement.predict import Placement, placed
from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.tables import Tables

MOST, BEAM = 1000, 100


class Label(NamedTuple):
    """A partial placement: seconds, and of each limited device weights, peak, and bytes held now.

    ``spent`` has three numbers a limited device; ``chosen`` is a linked list of (unit, device).
    """

    seconds: float
    spent: tuple[float, ...]
    chosen: tuple[int, int, Any] | None


State = tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...], frozenset[tuple[str, int]]]
"""Devices of open units, device sets (bits) of open values, limited devices of open weights."""


def is_chain(problem: Problem) -> bool:
    """Whether each node feeds the next alone; inputs go to the first, outputs come from the last.

    Then nothing can overlap, and the latency is the sum of times.
    """
    last = len(problem.nodes) - 1
    for value in problem.values:
        after = 0 if value.source is None else value.source + 1
        if value.targets not in ((after,), ()) or (value.to_host and value.source != last):
            return False
    fed = {edge.target for edge in problem.edges}
    return all(node.name in fed for node in problem.nodes[1:])


def place(problem: Problem, *, overlap: bool = False, most: int = MOST) -> Placement:
    """The least sum of times, exact as the module says; ``most`` bounds the states of a position.

    Once more are open, it goes on as a beam search with up to ``BEAM`` states.

    Raises :class:`PlacementError` where no placement, or none that was kept, meets the limits.
    """
    tables = Tables.of(problem)
    search = _Search(tables)
    states: dict[State, list[Label]] = {((), search.start, frozenset()): [search.first]}
    whole = True
    for position in range(len(problem.nodes)):
        following: dict[State, list[Label]] = {}
        for state, labels in states.items():
            for device in search.choices(position, state):
                for after, label in search.extend(position, state, labels, device):
                    following.setdefault(after, []).append(label)
        states = {s: _undominated(labels) for s, labels in following.items()}
        whole = whole and sum(map(len, states.values())) <= most
        if not whole:
            states = _fewest(states, min(most, BEAM))
        if not states:
            node = problem.nodes[position]
            proof = "no placement meets" if whole else "no placement that was kept meets"
            raise PlacementError(
                f"dp: {proof} the memory limits at node {node.name}; ilp tells the smallest excess"
            )
    best = min((label for labels in states.values() for label in labels), key=lambda x: x.seconds)
    row = [0] * len(tables.units)
    at = best.chosen
    while at is not None:
        row[at[0]] = at[1]
        at = at[2]
    return placed(
        problem,
        "dp",
        tables.assignment(np.array(row, np.int64)),
        overlap=overlap,
        exact=whole and (not overlap or is_chain(problem)),
        note="" if whole else f"only the fastest {min(most, BEAM)} states were kept",
    )


def _undominated(labels: list[Label]) -> list[Label]:
    """Those that no other one is as good as in time and in all of memory."""
    if not labels[0].spent:
        return [min(labels, key=lambda label: label.seconds)]
    labels = sorted(labels, key=lambda label: (label.seconds, label.spent))
    spent = np.array([label.spent for label in labels])
    kept: list[int] = []
    for at, row in enumerate(spent):
        if not (spent[kept] <= row).all(1).any():
            kept.append(at)
    return [labels[at] for at in kept]


def _fewest(states: dict[State, list[Label]], most: int) -> dict[State, list[Label]]:
    every = [(label, state) for state, labels in states.items() for label in labels]
    every.sort(key=lambda pair: pair[0].seconds)
    kept: dict[State, list[Label]] = {}
    for label, state in every[:most]:
        kept.setdefault(state, []).append(label)
    return kept


@dataclass(frozen=True)
class _Open:
    """What is still needed after a position, and what each position uses and makes."""

    units: list[set[int]]
    values: list[set[int]]
    weights: list[set[str]]
    used: list[list[int]]
    made: list[list[int]]


class _Search:
    def __init__(self, tables: Tables) -> None:
        self.tables, self.problem = tables, tables.problem
        self.open = _open(tables)
        limits = tables.limits
        self.limited = [d for d in range(len(tables.devices)) if limits[d] < float("inf")]
        self.slot = {device: 3 * at for at, device in enumerate(self.limited)}
        values = self.problem.values
        inputs = [at for at, value in enumerate(values) if value.source is None and value.targets]
        self.start = tuple((at, 1 << tables.host) for at in inputs)
        spent = [0.0] * (3 * len(self.limited))
        if tables.host in self.slot:
            # What lies there from the start counts as weights: it stays through the call.
            spent[self.slot[tables.host]] = float(tables.input_bytes)
        self.first = Label(0.0, tuple(spent), None)

    def choices(self, position: int, state: State) -> tuple[int, ...]:
        """The devices that a node may go to: one where its unit is placed."""
        unit = int(self.tables.unit_of[position])
        for other, device in state[0]:
            if other == unit:
                return (device,)
        return self.tables.allowed[unit]

    def extend(
        self, position: int, state: State, labels: list[Label], device: int
    ) -> Iterator[tuple[State, Label]]:
        """The state after a node on ``device``, with each label that meets the limits."""
        tables, problem = self.tables, self.problem
        unit = int(tables.unit_of[position])
        homes, where = dict(state[0]), dict(state[1])
        new = unit not in homes
        homes[unit] = device
        added = float(tables.seconds[position, device])
        copied: list[tuple[int, int]] = []
        for at in self.open.used[position]:
            if not where[at] >> device & 1:
                source = problem.values[at].source
                here = tables.host if source is None else homes[int(tables.unit_of[source])]
                added += float(tables.moves[at, here, device])
                where[at] |= 1 << device
                copied.append((at, device))
        for at in self.open.made[position]:
            where[at] = 1 << device
            if problem.values[at].to_host and device != tables.host:
                added += float(tables.moves[at, device, tables.host])
                where[at] |= 1 << tables.host
        held, weights = self._held(position, device, homes, where)
        loaded = {(w, device) for w in problem.nodes[position].weights if device in self.slot}
        fixed = problem.nodes[position].weight_bytes + problem.nodes[position].state_bytes
        fixed += sum(problem.nodes[position].weights[w] for w, _ in loaded - state[2])
        after: State = (
            tuple(sorted((u, d) for u, d in homes.items() if u in self.open.units[position])),
            tuple(sorted((v, m) for v, m in where.items() if v in self.open.values[position])),
            frozenset((w, d) for w, d in state[2] | loaded if w in self.open.weights[position]),
        )
        for label in labels:
            spent = list(label.spent)
            if device in self.slot:
                spent[self.slot[device]] += fixed
            if position:
                for at, to in copied:
                    if to in self.slot:  # on a chain it was there since the node before was done
                        slot = self.slot[to]
                        early = spent[slot + 2] + problem.values[at].bytes
                        spent[slot + 1] = max(spent[slot + 1], early)
                        spent[slot + 2] = early
            for to, slot in self.slot.items():
                spent[slot + 1] = max(spent[slot + 1], held.get(to, 0.0) + weights.get(to, 0.0))
                spent[slot + 2] = held.get(to, 0.0) + weights.get(to, 0.0)
            if all(spent[s] + spent[s + 1] <= tables.limits[d] for d, s in self.slot.items()):
                chosen = (unit, device, label.chosen) if new else label.chosen
                yield after, Label(label.seconds + added, tuple(spent), chosen)

    def _held(
        self, position: int, device: int, homes: dict[int, int], where: dict[int, int]
    ) -> tuple[dict[int, float], dict[int, float]]:
        """Bytes of results and copies at a position, and of work space, by device."""
        held: dict[int, float] = {}
        results: dict[int, int] = {}
        if not self.slot:
            return held, held
        for at, bits in where.items():
            value = self.problem.values[at]
            home = _home(self.tables, value.source, homes)
            if value.last < position:
                continue
            if value.source is not None:
                results[value.source] = home
            for to in self.limited:
                if bits >> to & 1 and to != home:
                    held[to] = held.get(to, 0.0) + value.bytes
        results[position] = device
        for node, home in results.items():
            held[home] = held.get(home, 0.0) + self.problem.nodes[node].output_bytes
        return held, {device: float(self.problem.nodes[position].work_bytes)}


def _home(tables: Tables, source: int | None, homes: dict[int, int]) -> int:
    """The device at which a value was made."""
    return tables.host if source is None else homes[int(tables.unit_of[source])]


def _open(tables: Tables) -> _Open:
    problem, count = tables.problem, len(tables.problem.nodes)
    used: list[list[int]] = [[] for _ in range(count)]
    made: list[list[int]] = [[] for _ in range(count)]
    values: list[set[int]] = [set() for _ in range(count)]
    units: list[set[int]] = [set() for _ in range(count)]
    weights: list[set[str]] = [set() for _ in range(count)]
    for at, value in enumerate(problem.values):
        for target in value.targets:
            used[target].append(at)
        if value.source is not None:
            made[value.source].append(at)
        # A result that the model returns is held to the end; where it lies matters for memory.
        limited = bool(problem.limits) and value.to_host
        until = count if limited else max(value.targets, default=-1)
        for position in range(value.first, until):
            values[position].add(at)
            if value.source is not None:
                units[position].add(int(tables.unit_of[value.source]))
    for at, unit in enumerate(tables.units):
        for position in range(unit.members[0], unit.members[-1]):
            units[position].add(at)
    for weight, (_, users) in tables.shared.items():
        for position in range(users[0], users[-1]):
            weights[position].add(weight)
    return _Open(units, values, weights, used, made)
