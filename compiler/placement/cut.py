"""Minimum cut for two devices: the least sum of times, exactly, where no memory limit binds.

Each unit is on one side of a cut between the two devices (Stone, "Multiprocessor Scheduling with
the Aid of Network Flow Algorithms", 1977); ours counts a value once however many nodes use it, by
two more vertices a value, one for each way. scipy's maximum flow takes whole numbers: times are
rounded to a 2^30th of their sum, so the result is the least sum but for that.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from burnish.compiler.placement.errors import NotApplicableError
from burnish.compiler.placement.predict import Placement, placed
from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.tables import Tables

WHOLE = 2**30


def place(problem: Problem, *, overlap: bool = False) -> Placement:
    """The least sum of times over two devices.

    Exact without overlap. Memory limits are not seen by the cut: an answer over one is refused
    (``PlacementError``), one that meets them is exact. Raises :class:`NotApplicableError` where
    more than two devices can run something.
    """
    tables = Tables.of(problem)
    used = sorted({device for allowed in tables.allowed for device in allowed})
    if len(used) > 2:
        names = ", ".join(tables.devices[device] for device in used)
        raise NotApplicableError(f"a cut is between two devices, here are {names}; use ilp")
    one, other = used if len(used) == 2 else (used[0], used[0])
    row = np.full(len(tables.units), one)
    if one != other:
        row[_other_side(tables, one, other)] = other
    assignment = tables.assignment(row)
    return placed(problem, "cut", assignment, overlap=overlap, exact=not overlap)


def _other_side(tables: Tables, one: int, other: int) -> list[int]:
    """The units that go to ``other``. Vertices: units, then source and sink, then of values."""
    count = len(tables.units)
    source, sink = count, count + 1
    arcs: list[tuple[int, int, float]] = []  # on the source's side is `one`
    never: list[tuple[int, int]] = []
    for at, unit in enumerate(tables.units):
        cost = tables.seconds[list(unit.members)].sum(0)
        for device, arc in ((other, (source, at)), (one, (at, sink))):
            if device in tables.allowed[at]:
                arcs.append((*arc, float(cost[device])))
            else:
                never.append(arc)
    extra = sink + 1
    for at, value in enumerate(tables.problem.values):
        move = tables.moves[at]
        users = {int(tables.unit_of[target]) for target in value.targets}
        to_other, to_one = extra, extra + 1
        extra += 2
        if value.source is None:
            arcs += [(source, to_other, float(move[tables.host, other]))]
            arcs += [(to_one, sink, float(move[tables.host, one]))]
        else:
            maker = int(tables.unit_of[value.source])
            arcs += [(maker, to_other, float(move[one, other]))]
            arcs += [(to_one, maker, float(move[other, one]))]
            if value.to_host and tables.host == one:
                never += [(source, to_one)]
            elif value.to_host and tables.host == other:
                never += [(to_other, sink)]
            elif value.to_host:
                arcs += [(source, maker, float(move[other, tables.host]))]
                arcs += [(maker, sink, float(move[one, tables.host]))]
        never += [(to_other, user) for user in users] + [(user, to_one) for user in users]
    return _cut(arcs, never, extra, source, sink, count)


def _cut(
    arcs: list[tuple[int, int, float]],
    never: list[tuple[int, int]],
    size: int,
    source: int,
    sink: int,
    count: int,
) -> list[int]:
    """The units on the sink's side of a least cut that has none of ``never``."""
    scale = WHOLE / (sum(cost for *_, cost in arcs) or 1.0)
    heads = [*(a for a, *_ in arcs), *(a for a, _ in never)]
    tails = [*(b for _, b, _ in arcs), *(b for _, b in never)]
    costs = [round(cost * scale) for *_, cost in arcs]
    whole = np.array(costs + [WHOLE + len(arcs)] * len(never), np.int64)
    graph = csr_array((whole, (heads, tails)), shape=(size, size))
    graph.sum_duplicates()
    graph.data = np.minimum(graph.data, WHOLE + len(arcs))
    graph = graph.astype(np.int32)
    graph.eliminate_zeros()
    rest = graph - maximum_flow(graph, source, sink).flow
    rest.data = np.maximum(rest.data, 0)
    rest.eliminate_zeros()
    reached = set(breadth_first_order(rest, source, return_predecessors=False).tolist())
    return [unit for unit in range(count) if unit not in reached]
