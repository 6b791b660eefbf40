"""Every placement, for problems small enough: what the other algorithms are held against."""

from __future__ import annotations

import itertools
import math

import numpy as np

from burnish.compiler.placement.errors import NotApplicableError, PlacementError
from burnish.compiler.placement.predict import Placement, placed
from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.tables import Tables

MOST = 500_000
CHUNK = 20_000


def place(problem: Problem, *, overlap: bool = False, most: int = MOST) -> Placement:
    """The best of all placements; exact. Refuses more than ``most`` of them."""
    tables = Tables.of(problem)
    count = math.prod(map(len, tables.allowed))
    if count > most:
        raise NotApplicableError(
            f"trying every placement is for up to {most:,} of them, here are {count:,}; use ilp"
        )
    best, found = np.inf, None
    every = itertools.product(*tables.allowed)
    while rows := list(itertools.islice(every, CHUNK)):
        table = np.array(rows, np.int64)
        seconds, excess = tables.evaluate(table, overlap=overlap)
        seconds = np.where(excess > 0, np.inf, seconds)
        at = int(seconds.argmin())
        if seconds[at] < best:
            best, found = float(seconds[at]), table[at]
    if found is None:
        raise PlacementError("no placement meets the memory limits; ilp tells the smallest excess")
    assignment = tables.assignment(found)
    return placed(
        problem, "exhaustive", assignment, overlap=overlap, exact=True, note=f"{count:,} tried"
    )
