"""What each run of nodes takes as a stage: ``[start, end]`` tables, end not included."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.tables import Floats, Tables


class StageTables:
    """Times and bytes of every run; infinite where it cannot be a stage."""

    def __init__(self, problem: Problem, depth: int) -> None:
        self.problem, self.depth = problem, depth
        self.tables = Tables.of(problem)
        self.count = len(problem.nodes)

    @cached_property
    def legal(self) -> Floats:
        """0 for runs of at least one node whose ends split no group, else infinite."""
        found = np.zeros((self.count + 1, self.count + 1))
        found[np.tril_indices(self.count + 1)] = np.inf
        for unit in self.tables.units:
            found[unit.members[0] + 1 : unit.members[-1] + 1] = np.inf
            found[:, unit.members[0] + 1 : unit.members[-1] + 1] = np.inf
        return found

    def compute(self, device: str) -> Floats:
        """Seconds of the nodes of a run on a device."""
        column = self.tables.devices.index(device)
        able = np.array([column in self.tables.allowed[unit] for unit in self.tables.unit_of], bool)
        sums = _sums(np.where(able, self.tables.seconds[:, column], 0.0))
        unable = _sums(~able)
        spent = sums[None, :] - sums[:, None] + self.legal
        return np.where(unable[None, :] > unable[:, None], np.inf, spent)

    @cached_property
    def crossing(self) -> Floats:
        """``[positions + 1]`` bytes handed over at a cut before each position."""
        found = np.zeros(self.count + 1)
        for value in self.problem.values:
            if value.targets:
                first = value.targets[0] if value.source is None else value.source
                found[first + 1 : value.targets[-1] + 1] += value.bytes
        return found

    @cached_property
    def given(self) -> Floats:
        """Bytes of inputs that a run is the first to use."""
        sums = _sums(self._inputs())
        return sums[None, :] - sums[:, None]

    def _inputs(self) -> Floats:
        found = np.zeros(self.count)
        for value in self.problem.values:
            if value.source is None and value.targets:
                found[value.targets[0]] += value.bytes
        return found

    def take(self, devices: Sequence[str], stage: int) -> Floats:
        """Seconds of what a stage takes from the one before and the host, and gives the host."""
        problem, device = self.problem, devices[stage]
        ins, outs = np.zeros(self.count), np.zeros(self.count)
        for value in problem.values:
            if value.source is None and value.targets:
                ins[value.targets[0]] += problem.move_seconds(problem.host, device, value.bytes)
            if value.to_host and value.source is not None:
                outs[value.source] += problem.move_seconds(device, problem.host, value.bytes)
        sums = _sums(ins + outs)
        found: Floats = sums[None, :] - sums[:, None]
        if stage:
            link = problem.channels[devices[stage - 1], device]
            moved = link.latency_seconds + self.crossing / link.bytes_per_second
            found = found + np.where(self.crossing > 0, moved, 0.0)[:, None]
        return found

    def seconds(self, devices: Sequence[str], stage: int, overlap: bool) -> Floats:
        """A stage's seconds, for every run that it may be."""
        compute, take = self.compute(devices[stage]), self.take(devices, stage)
        return np.maximum(compute, take) if overlap else compute + take

    @cached_property
    def memory(self) -> Floats:
        """Bytes that a run needs."""
        problem, count = self.problem, self.count
        found = np.zeros((count + 1, count + 1))
        own = np.array([node.weight_bytes + node.state_bytes for node in problem.nodes], float)
        lasts = np.arange(count)
        for value in problem.values:
            if value.source is not None:
                lasts[value.source] = max(lasts[value.source], value.last)
        outputs = np.array([node.output_bytes for node in problem.nodes], float)
        works = np.array([node.work_bytes for node in problem.nodes], float)
        for start in range(count):
            held = works[start:].copy()
            for node in range(start, count):
                held[node - start : lasts[node] + 1 - start] += outputs[node]
            for value in problem.values:
                if value.targets and value.targets[-1] >= start:
                    first = value.targets[0] if value.source is None else value.source
                    if first < start:
                        held[: value.targets[-1] + 1 - start] += value.bytes
            seen: set[str] = set()
            shared = np.zeros(count - start)
            for node in range(start, count):
                for weight, size in problem.nodes[node].weights.items():
                    if weight not in seen:
                        seen.add(weight)
                        shared[node - start] += size
            taken = self.crossing[start] + self.given[start, start + 1 :]
            found[start, start + 1 :] = (
                np.maximum.accumulate(held)
                + np.cumsum(own[start:] + shared)
                + self.given[start, start + 1 :]
                + (self.depth - 1) * taken
            )
        return found

    def excess(self, device: str) -> Floats:
        """Bytes by which a run is over the limit of a device."""
        limit = self.problem.limits.get(device)
        if limit is None:
            return np.zeros_like(self.memory)
        return np.maximum(0.0, self.memory - limit)


def _sums(values: np.ndarray) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
