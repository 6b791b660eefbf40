"""Greedy placement, as runtimes do it: the baseline.

Nodes are looked at in the order of the problem, and each goes to the device on which it would be
done first, given where the nodes before it are: the transfers into it count, what its own result
will cost later does not (earliest finish time, as in list scheduling; HEFT of Topcuoglu et al.
2002 without its ranks). Without overlap the first done is the least time added. A device whose
memory would overflow by what is placed so far is passed over.
"""

from __future__ import annotations

import numpy as np

from burnish.compiler.placement.errors import PlacementError
from burnish.compiler.placement.predict import Placement, placed
from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.tables import Floats, Tables


def place(problem: Problem, *, overlap: bool = False) -> Placement:
    """A placement made in one sweep; no guarantee.

    Raises :class:`PlacementError` where every device that can run the next node is full.
    """
    sweep = _Sweep(Tables.of(problem), overlap)
    for position in range(len(problem.nodes)):
        sweep.step(position)
    return placed(problem, "greedy", sweep.tables.assignment(sweep.chosen), overlap=overlap)


class _Sweep:
    """What is placed so far: clocks, where each value is, and bytes held at each position."""

    def __init__(self, tables: Tables, overlap: bool) -> None:
        self.tables, self.overlap = tables, overlap
        problem, count = tables.problem, len(tables.devices)
        self.chosen = np.full(len(tables.units), -1, np.int64)
        self.held = np.zeros((count, len(problem.nodes)))
        self.held[tables.host] += tables.input_bytes
        self.weights: set[tuple[str, int]] = set()
        self.free = [0.0] * count
        self.links: dict[tuple[int, int], float] = {}
        self.arrived: list[dict[int, float]] = [{} for _ in problem.values]
        self.copied: list[set[int]] = [set() for _ in problem.values]
        self.used: list[list[int]] = [[] for _ in problem.nodes]
        self.made: list[list[int]] = [[] for _ in problem.nodes]
        for at, value in enumerate(problem.values):
            for target in value.targets:
                self.used[target].append(at)
            if value.source is None:
                self.arrived[at][tables.host] = 0.0
            else:
                self.made[value.source].append(at)

    def step(self, position: int) -> None:
        """Choose the device of a node whose unit has none, and run the node there."""
        tables = self.tables
        unit = int(tables.unit_of[position])
        if self.chosen[unit] < 0:
            candidates = []
            for device in tables.allowed[unit]:
                added = self._added(unit, device)
                if all((self.held[d] + more).max() <= tables.limits[d] for d, more in added):
                    rest = sum(tables.seconds[m, device] for m in tables.units[unit].members[1:])
                    candidates.append((self._finish(position, device)[0] + rest, device, added))
            if not candidates:
                node = tables.problem.nodes[position]
                tried = ", ".join(tables.units[unit].devices)
                raise PlacementError(
                    f"greedy found no placement in memory: at node {node.name} ({node.operator}) "
                    f"no room is left on {tried}; use ilp"
                )
            _, device, added = min(candidates, key=lambda one: one[0])
            self._hold(unit, device, added)
        self._run(position, int(self.chosen[unit]))

    def _finish(self, position: int, device: int) -> tuple[float, list[tuple[int, int, float]]]:
        """When the node would be done, or the time it adds, and the moves it takes."""
        tables = self.tables
        moves, ready, moved = [], self.free[device], 0.0
        links = dict(self.links)
        for at in self.used[position]:
            there = self.arrived[at]
            if device not in there:
                source = next(iter(there))  # the first is where the value was made
                start = max(links.get((source, device), 0.0), there[source])
                took = float(tables.moves[at, source, device])
                links[source, device] = end = start + took
                moves.append((at, source, end))
                moved += took
                ready = max(ready, end)
            else:
                ready = max(ready, there[device])
        seconds = float(tables.seconds[position, device])
        return (ready + seconds if self.overlap else moved + seconds), moves

    def _run(self, position: int, device: int) -> None:
        _, moves = self._finish(position, device)
        ready = self.free[device]
        for at, source, end in moves:
            self.arrived[at][device] = self.links[source, device] = end
        for at in self.used[position]:
            ready = max(ready, self.arrived[at][device])
        self.free[device] = done = ready + float(self.tables.seconds[position, device])
        for at in self.made[position]:
            self.arrived[at][device] = done

    def _added(self, unit: int, device: int) -> list[tuple[int, Floats]]:
        """Devices with the bytes at each position that the unit adds there."""
        tables = self.tables
        own = np.zeros(self.held.shape[1])
        found = [(device, own)]
        for member in tables.units[unit].members:
            own += tables.node_bytes[member]
            for weight, count in tables.problem.nodes[member].weights.items():
                if (weight, device) not in self.weights:
                    own += count
            for at, where in self._copies(member, unit, device):
                if where == device:
                    own += tables.value_bytes[at]
                else:
                    found.append((where, tables.value_bytes[at]))
        return found

    def _copies(self, member: int, unit: int, device: int) -> list[tuple[int, int]]:
        """The values that are copied, with the device each comes to, once a member is placed."""
        tables, problem, found = self.tables, self.tables.problem, []
        for at in self.used[member]:
            source = problem.values[at].source
            here = tables.host if source is None else self._device(source, unit, device)
            if here not in (-1, device) and device not in self.copied[at]:
                found.append((at, device))
        for at in self.made[member]:
            value = problem.values[at]
            wanted = {self._device(target, unit, device) for target in value.targets} - {-1, device}
            if value.to_host and device != tables.host:
                wanted.add(tables.host)
            found += [(at, where) for where in wanted]
        return found

    def _device(self, node: int, unit: int, device: int) -> int:
        other = int(self.tables.unit_of[node])
        return device if other == unit else int(self.chosen[other])

    def _hold(self, unit: int, device: int, added: list[tuple[int, Floats]]) -> None:
        self.chosen[unit] = device
        for where, more in added:
            self.held[where] += more
        for member in self.tables.units[unit].members:
            weights = self.tables.problem.nodes[member].weights
            self.weights |= {(weight, device) for weight in weights}
            for at, where in self._copies(member, unit, device):
                self.copied[at].add(where)
