"""The best predicted placement over all algorithms, and what each one found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from burnish.compiler.placement import chain, cut, exhaustive, greedy, ilp, learned
from burnish.compiler.placement.errors import PlacementError
from burnish.compiler.placement.predict import Placement, placed
from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.units import units
from burnish.compiler.registry import near

ALGORITHMS: Mapping[str, Callable[..., Placement]] = {
    "greedy": greedy.place,
    "dp": chain.place,
    "cut": cut.place,
    "ilp": ilp.place,
    "learned": learned.place,
    "exhaustive": exhaustive.place,
}
"""By name: each takes a problem and ``overlap``."""

DEFAULT = ("greedy", "dp", "cut", "ilp", "learned")


@dataclass(frozen=True)
class Row:
    """What one algorithm found, or why not; ``took_s`` is the time of the search."""

    algorithm: str
    placement: Placement | None
    took_s: float
    fault: str = ""


@dataclass(frozen=True)
class Choice:
    """The best placement, and a row for each algorithm and single device, as they were tried."""

    best: Placement
    rows: tuple[Row, ...]


def choose(
    problem: Problem,
    *,
    overlap: bool = False,
    algorithms: Sequence[str] = DEFAULT,
    time_limit_s: float = ilp.TIME_LIMIT_S,
    seed: int = 0,
) -> Choice:
    """The placement with the least predicted latency, all on one device included.

    ``time_limit_s`` is for ``ilp``, ``seed`` for ``learned``. Of equal ones the first is taken, an
    exact one before others. Raises what :func:`~.units.units` raises,
    :class:`~.errors.MemoryLimitError` with the smallest excess where no placement can meet the
    limits, and :class:`PlacementError` with every algorithm's reason where none found any.
    """
    for name in algorithms:
        if name not in ALGORITHMS:
            raise PlacementError(f"unknown algorithm {name!r}{near(name, ALGORITHMS)}")
    units(problem)
    extra: dict[str, dict[str, Any]] = {
        "ilp": {"time_limit_s": time_limit_s},
        "learned": {"seed": seed},
    }
    rows = [
        _tried(f"all on {device.name}", _single, problem, device.name, overlap=overlap)
        for device in problem.devices
        if any(device.name in node.seconds for node in problem.nodes)
    ]
    for name in algorithms:
        more = extra.get(name, {})
        rows.append(_tried(name, ALGORITHMS[name], problem, overlap=overlap, **more))
    found = [row.placement for row in rows if row.placement is not None]
    if found:
        best = min(found, key=lambda one: (one.seconds, not one.exact))
        return Choice(best, tuple(rows))
    if problem.limits:
        error = ilp.smallest_excess(problem, time_limit_s=time_limit_s)
        if error.excess or not error.proven:
            raise error
    faults = "; ".join(f"{row.algorithm}: {row.fault}" for row in rows)
    raise PlacementError(f"no algorithm found a placement: {faults}")


def _tried(name: str, algorithm: Callable[..., Placement], *given: Any, **more: Any) -> Row:
    start = time.perf_counter()
    try:
        placement = algorithm(*given, **more)
    except PlacementError as error:
        return Row(name, None, time.perf_counter() - start, error.message)
    return Row(name, placement, time.perf_counter() - start)


def _single(problem: Problem, device: str, *, overlap: bool) -> Placement:
    everywhere = {node.name: device for node in problem.nodes}
    return placed(problem, f"all on {device}", everywhere, overlap=overlap)
