"""Integer linear programming: the least latency under memory limits, by HiGHS.

Variables: which device each unit is on (whole numbers); for each value where it is needed and
from where it comes (these follow). Serially the objective is the sum of times; the relaxation is
that of the minimum cut for two devices, so it is mostly solved at the root. With overlap the order
on every device and link is that of the problem, so the latency needs no ordering variables: clocks
of devices and links, held to their events by large constants: the time of a placement that is
known, which is the least sum of times improved unit by unit (:mod:`.improve`). Memory is linear as
:mod:`.predict` counts it, one row for each position.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

import numpy as np

from burnish.compiler.placement import greedy
from burnish.compiler.placement.chain import is_chain
from burnish.compiler.placement.clocks import add_clocks
from burnish.compiler.placement.errors import MemoryLimitError, PlacementError
from burnish.compiler.placement.improve import improved
from burnish.compiler.placement.linear import FINISHED, IMPOSSIBLE, Program, Solution
from burnish.compiler.placement.predict import Placement, placed, predict
from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.tables import Ints, Tables
from burnish.compiler.report import figures

TIME_LIMIT_S = 30.0
SCALE = 1000.0
"""What the best known latency and each memory limit are in the program's units."""


def place(
    problem: Problem, *, overlap: bool = False, time_limit_s: float = TIME_LIMIT_S
) -> Placement:
    """The least latency; ``exact`` where it is proven, else ``note`` has the gap.

    Raises :class:`MemoryLimitError` with the smallest excess where no placement meets the memory
    limits, :class:`PlacementError` where none was found in time.
    """
    end = time.monotonic() + time_limit_s
    tables = Tables.of(problem)
    clocks = overlap and not is_chain(problem)  # on a chain nothing can overlap
    start = _start(tables, overlap, end)
    known = _known(tables, start, overlap)
    margin = np.zeros(len(tables.devices))
    for _ in range(4):
        model = Model.of(tables, known, clocks, tables.limits - margin)
        solution = model.program.solve(max(0.1, end - time.monotonic()))
        if solution.x is None:
            break
        row = model.row(solution)
        excess = predict(problem, tables.assignment(row), overlap=overlap).excess
        if not excess:
            return _answer(tables, row, start, solution, model, overlap, whole=not margin.any())
        # The solver lets a variable be off a whole number by 1e-6: a few bytes.
        for device, over in excess.items():
            margin[tables.devices.index(device)] += over + 1
    if start is not None:
        return _answer(tables, start, None, solution, model, overlap, whole=False)
    if solution.status == IMPOSSIBLE and not margin.any():
        raise smallest_excess(problem, time_limit_s=time_limit_s)
    raise PlacementError(
        f"ilp found no placement in {time_limit_s:g} s ({solution.message.strip()}); give it more "
        "time, or take another algorithm"
    )


def smallest_excess(problem: Problem, *, time_limit_s: float = TIME_LIMIT_S) -> MemoryLimitError:
    """The error that tells by how much the memory limits are missed at least, in sum."""
    tables = Tables.of(problem)
    model = Model.of(tables, None, False, tables.limits)
    solution = model.program.solve(time_limit_s)
    if solution.x is None:
        return MemoryLimitError(
            "no placement meets the memory limits, and the smallest excess was not found in "
            f"{time_limit_s:g} s; raise the limits or the time",
            {},
            proven=False,
        )
    prediction = predict(problem, tables.assignment(model.row(solution)))
    over = prediction.excess
    proven = solution.status == FINISHED
    said = ", ".join(
        f"{device} needs {figures.size(prediction.memory[device])} of "
        f"{figures.size(problem.limits[device])} ({count:,} bytes over)"
        for device, count in over.items()
    )
    least = "the smallest excess is" if proven else "the smallest excess found in time is"
    text = (
        f"no placement meets the memory limits: {least} {sum(over.values()):,} bytes, where "
        f"{said}. Raise the limits, add a device, or make the model smaller (quantize it)"
    )
    return MemoryLimitError(text, over, proven=proven)


def _start(tables: Tables, overlap: bool, end: float) -> Ints | None:
    """A placement to start from, where one is found: greedy's, one device's, or, with overlap,
    the least sum of times, moved unit by unit while that makes it better."""
    problem, rows = tables.problem, []
    with suppress(PlacementError):
        rows.append(tables.row(greedy.place(problem, overlap=overlap).assignment))
    for device in range(len(tables.devices)):
        if all(device in allowed for allowed in tables.allowed):
            rows.append(np.full(len(tables.units), device))
    left = end - time.monotonic()
    if overlap:
        finite = np.where(np.isfinite(tables.seconds), tables.seconds, 0.0)
        model = Model.of(tables, max(float(finite.sum()), 1e-12), False, tables.limits)
        solution = model.program.solve(max(0.1, left / 4))
        if solution.x is not None:
            rows.append(model.row(solution))
    if not rows:
        return None
    table = np.array(rows, np.int64)
    seconds, excess = tables.evaluate(table, overlap=overlap)
    seconds = np.where(excess > 0, np.inf, seconds)
    best = int(seconds.argmin())
    if not np.isfinite(seconds[best]):
        return None
    if not overlap:
        return table[best]
    return improved(tables, table[best], overlap=True, until=time.monotonic() + left / 4)


def _known(tables: Tables, start: Ints | None, overlap: bool) -> float:
    """A latency that can be reached: that of ``start``, or every node's and move's slowest."""
    if start is not None:
        found = float(tables.evaluate(start[None], overlap=overlap)[0][0])
    else:
        finite = np.where(np.isfinite(tables.seconds), tables.seconds, 0.0)
        moves = tables.moves.max((1, 2)).sum() if len(tables.moves) else 0.0
        found = float(finite.max(1).sum() + moves * len(tables.devices))
    return max(found * 1.0001, 1e-12)  # room for the solver's tolerance


def _least(tables: Tables, overlap: bool) -> float:
    """No placement is faster: every node on its fastest device, moves for free."""
    fastest = [
        min(tables.seconds[node, list(tables.allowed[unit])])
        for node, unit in enumerate(tables.unit_of)
    ]
    if not overlap:
        return float(sum(fastest))
    done = [0.0] * len(fastest)
    for value in tables.problem.values:  # in the order of their sources
        if value.source is not None:
            end = done[value.source] + fastest[value.source]
            for target in value.targets:
                done[target] = max(done[target], end)
    return float(max(map(sum, zip(done, fastest, strict=True))))


def _answer(
    tables: Tables,
    row: Ints,
    start: Ints | None,
    solution: Solution,
    model: Model,
    overlap: bool,
    whole: bool,
) -> Placement:
    if start is not None:
        rows = np.array([row, start], np.int64)
        row = rows[int(tables.evaluate(rows, overlap=overlap)[0].argmin())]
    exact = solution.status == FINISHED and whole
    bound = max((solution.bound or 0.0) * model.unit, _least(tables, overlap))
    answer = placed(
        tables.problem, "ilp", tables.assignment(row), overlap=overlap, exact=exact, bound=bound
    )
    if exact:
        return answer
    note = "limits tightened by some bytes"
    if solution.status != FINISHED:
        gap = 1 - bound / answer.seconds if answer.seconds else 0.0
        note = f"stopped with a gap of {gap:.1%}"
    return replace(answer, note=note)


class Model:
    """The program of a problem: ``x[unit][device]``, ``copy[value][device]``, ``way``."""

    def __init__(self, tables: Tables, known: float | None) -> None:
        self.tables, self.program = tables, Program()
        self.unit = (known or SCALE) / SCALE
        self.x: list[dict[int, int]] = []
        self.way: dict[tuple[int, int, int], int] = {}

    @classmethod
    def of(cls, tables: Tables, known: float | None, overlap: bool, limits: np.ndarray) -> Model:
        """``known`` is a latency that can be had; without it the excess of memory is minimized."""
        model = cls(tables, known)
        serial = known is not None and not overlap
        model._units(serial)
        model._values(serial)
        model._memory(limits, excess=known is None)
        if known is not None and overlap:
            add_clocks(model.program, tables, model.x, model.way, model.unit, SCALE)
        return model

    def row(self, solution: Solution) -> Ints:
        """The device of each unit."""
        x = solution.x
        assert x is not None
        return np.array([max(at, key=lambda d: x[at[d]]) for at in self.x], np.int64)

    def _units(self, serial: bool) -> None:
        for unit, allowed in zip(self.tables.units, self.tables.allowed, strict=True):
            cost = self.tables.seconds[list(unit.members)].sum(0) / self.unit
            found = {
                device: self.program.variable(
                    0, 1, whole=True, cost=float(cost[device]) if serial else 0.0
                )
                for device in allowed
            }
            self.x.append(found)
            self.program.equal(dict.fromkeys(found.values(), 1.0), 1.0)

    def _values(self, serial: bool) -> None:
        """A value that is needed on a device comes from where it is: for free, or by a move."""
        tables, program = self.tables, self.program
        for at, value in enumerate(tables.problem.values):
            source = {tables.host: None} if value.source is None else self.x[self._of(value.source)]
            needed: dict[int, list[int]] = {}
            for unit in sorted({self._of(target) for target in value.targets}):
                for device, variable in self.x[unit].items():
                    needed.setdefault(device, []).append(variable)
            if value.to_host:
                needed.setdefault(tables.host, [])
            for device, users in needed.items():
                copy = program.variable(float(value.to_host and device == tables.host), 1)
                for user in users:
                    program.at_least({copy: 1.0, user: -1.0}, 0.0)
                ways = {copy: -1.0}
                for here, chosen in source.items():
                    cost = tables.moves[at, here, device] / self.unit if serial else 0.0
                    way = program.variable(0, 1, cost=float(cost))
                    ways[way] = 1.0
                    self.way[at, here, device] = way
                    if chosen is not None:
                        program.at_most({way: 1.0, chosen: -1.0}, 0.0)
                program.equal(ways, 0.0)

    def _of(self, node: int) -> int:
        return int(self.tables.unit_of[node])

    def _memory(self, limits: np.ndarray, *, excess: bool) -> None:
        tables, program = self.tables, self.program
        count = len(tables.problem.nodes)
        for device in np.flatnonzero(np.isfinite(limits)).tolist():
            scale = SCALE / max(1.0, float(tables.limits[device]))
            free = float(limits[device]) - (tables.input_bytes if device == tables.host else 0)
            always: dict[int, float] = {}
            for size, users in tables.shared.values():
                units = {self._of(user) for user in users}
                variables = [self.x[unit][device] for unit in units if device in self.x[unit]]
                if variables:
                    held = program.variable(0, 1)
                    always[held] = size * scale
                    for variable in variables:
                        program.at_least({held: 1.0, variable: -1.0}, 0.0)
            if excess:
                over = program.variable(0, np.inf, cost=1.0 / scale / 1e6)
                always[over] = -1.0
            nodes = np.zeros((len(tables.units), count))
            for node in range(count):
                nodes[self._of(node)] += tables.node_bytes[node]
            moved = [(at, way) for (at, a, b), way in self.way.items() if b == device and a != b]
            for position in range(count):
                row = dict(always)
                for unit, variables_ in enumerate(self.x):
                    if device in variables_ and nodes[unit, position]:
                        row[variables_[device]] = float(nodes[unit, position]) * scale
                for at, way in moved:
                    if tables.value_bytes[at, position]:
                        row[way] = float(tables.value_bytes[at, position]) * scale
                program.at_most(row, free * scale)
