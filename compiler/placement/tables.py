"""A problem as arrays, and the prediction of many placements at once.

A placement is a row of device numbers, one a unit (see :mod:`.units`). The figures are those of
:mod:`.predict`, which tests hold against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.units import Unit, units

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tables:
    """The numbers of a problem; devices are numbered as in ``problem.devices``."""

    problem: Problem
    units: tuple[Unit, ...]

    @classmethod
    def of(cls, problem: Problem) -> Tables:
        """Raises what :func:`~.units.units` raises."""
        return cls(problem, units(problem))

    @cached_property
    def devices(self) -> tuple[str, ...]:
        return tuple(device.name for device in self.problem.devices)

    @cached_property
    def host(self) -> int:
        return self.devices.index(self.problem.host)

    @cached_property
    def unit_of(self) -> Ints:
        """``[nodes]`` the unit of each node."""
        found = np.zeros(len(self.problem.nodes), np.int64)
        for at, unit in enumerate(self.units):
            found[list(unit.members)] = at
        return found

    @cached_property
    def allowed(self) -> tuple[tuple[int, ...], ...]:
        """The device numbers of each unit."""
        return tuple(tuple(map(self.devices.index, unit.devices)) for unit in self.units)

    @cached_property
    def seconds(self) -> Floats:
        """``[nodes, devices]``, infinite where a node cannot run."""
        return np.array(
            [[node.seconds.get(d, np.inf) for d in self.devices] for node in self.problem.nodes]
        )

    @cached_property
    def moves(self) -> Floats:
        """``[values, devices, devices]`` seconds from the first device to the second."""
        count = len(self.devices)
        found = np.zeros((len(self.problem.values), count, count))
        for (a, b), link in self.problem.channels.items():
            at = self.devices.index(a), self.devices.index(b)
            for row, value in enumerate(self.problem.values):
                found[row][at] = link.seconds(value.bytes)
        return found

    @cached_property
    def limits(self) -> Floats:
        """``[devices]`` memory limits in bytes, infinite where there is none."""
        return np.array([self.problem.limits.get(d, np.inf) for d in self.devices], np.float64)

    @cached_property
    def node_bytes(self) -> Floats:
        """``[nodes, positions]`` bytes that a node holds on its device."""
        count = len(self.problem.nodes)
        found = np.zeros((count, count))
        last = np.arange(count)
        for value in self.problem.values:
            if value.source is not None:
                last[value.source] = max(last[value.source], value.last)
        for at, node in enumerate(self.problem.nodes):
            found[at] = node.weight_bytes + node.state_bytes
            found[at, at : last[at] + 1] += node.output_bytes
            found[at, at] += node.work_bytes
        return found

    @cached_property
    def value_bytes(self) -> Floats:
        """``[values, positions]`` bytes that a copy of a value takes."""
        found = np.zeros((len(self.problem.values), len(self.problem.nodes)))
        for at, value in enumerate(self.problem.values):
            found[at, value.first : value.last + 1] = value.bytes
        return found

    @cached_property
    def input_bytes(self) -> int:
        """What the inputs take at the host."""
        return sum(item.bytes for item in self.problem.inputs)

    @cached_property
    def shared(self) -> dict[str, tuple[int, list[int]]]:
        """Bytes and users of each shared weight."""
        found: dict[str, tuple[int, list[int]]] = {}
        for at, node in enumerate(self.problem.nodes):
            for weight, count in node.weights.items():
                found.setdefault(weight, (count, []))[1].append(at)
        return found

    def assignment(self, row: Ints) -> dict[str, str]:
        """The placement of a row, node name to device."""
        return {
            node.name: self.devices[row[self.unit_of[at]]]
            for at, node in enumerate(self.problem.nodes)
        }

    def row(self, assignment: Mapping[str, str]) -> Ints:
        """The row of a placement."""
        first = [self.problem.nodes[unit.members[0]].name for unit in self.units]
        return np.array([self.devices.index(assignment[name]) for name in first], np.int64)

    def evaluate(self, rows: Ints, *, overlap: bool) -> tuple[Floats, Floats]:
        """``[placements, units] -> seconds [placements], bytes over the limits [placements]``."""
        where = rows[:, self.unit_of]
        there = self._copies(where)
        seconds = self._overlapped(where, there) if overlap else self._summed(where, there)
        return seconds, self._excess(where, there)

    def _copies(self, where: Ints) -> npt.NDArray[np.bool_]:
        """``[placements, values, devices]`` whether a value is moved to a device."""
        every = np.arange(len(where))
        found = np.zeros((len(where), len(self.problem.values), len(self.devices)), bool)
        for at, value in enumerate(self.problem.values):
            for target in value.targets:
                found[every, at, where[:, target]] = True
            found[:, at, self.host] |= value.to_host
            found[every, at, self._source(where, value.source)] = False
        return found

    def _source(self, where: Ints, source: int | None) -> Ints:
        return np.full(len(where), self.host) if source is None else where[:, source]

    def _summed(self, where: Ints, there: npt.NDArray[np.bool_]) -> Floats:
        found: Floats = self.seconds[np.arange(where.shape[1]), where].sum(1)
        for at, value in enumerate(self.problem.values):
            found += (self.moves[at][self._source(where, value.source)] * there[:, at]).sum(1)
        return found

    def _overlapped(self, where: Ints, there: npt.NDArray[np.bool_]) -> Floats:
        count, every = len(self.devices), np.arange(len(where))
        free = np.zeros((len(where), count))
        links = np.zeros((len(where), count, count))
        ends = np.zeros(len(where))
        arrived: dict[int, Floats] = {}
        outgoing: dict[int | None, list[int]] = {}
        uses: list[list[int]] = [[] for _ in self.problem.nodes]
        for at, value in enumerate(self.problem.values):
            outgoing.setdefault(value.source, []).append(at)
            for target in value.targets:
                uses[target].append(at)

        def send(source: int | None, ready: Floats) -> None:
            here = self._source(where, source)
            for at in outgoing.get(source, ()):
                done = np.maximum(links[every, here], ready[:, None]) + self.moves[at][here]
                done = np.where(there[:, at], done, 0.0)
                links[every, here] = np.maximum(links[every, here], done)
                np.maximum(ends, done.max(1), out=ends)
                arrived[at] = np.where(there[:, at], done, ready[:, None])

        send(None, np.zeros(len(where)))
        for position in range(where.shape[1]):
            device = where[:, position]
            ready = free[every, device]
            for at in uses[position]:
                ready = np.maximum(ready, arrived[at][every, device])
            done = ready + self.seconds[position, device]
            free[every, device] = done
            np.maximum(ends, done, out=ends)
            send(position, done)
        return ends

    def _excess(self, where: Ints, there: npt.NDArray[np.bool_]) -> Floats:
        found = np.zeros(len(where))
        for device in np.flatnonzero(np.isfinite(self.limits)):
            here = where == device
            held = here.astype(float) @ self.node_bytes
            held += there[:, :, device].astype(float) @ self.value_bytes
            peak = held.max(1)
            for count, users in self.shared.values():
                peak = peak + count * here[:, users].any(1)
            if device == self.host:
                peak = peak + self.input_bytes
            found += np.maximum(0.0, peak - self.limits[device])
        return found
