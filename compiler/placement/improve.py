"""Making a placement better by moving one unit, or a few neighbours, at a time."""

from __future__ import annotations

import time

import numpy as np

from burnish.compiler.placement.tables import Ints, Tables

RUNS = (1, 2, 4, 8, 16)
"""How many neighbouring units are moved together."""
CHUNK = 4096
LEAST = 1e-9
"""The relative gain below which a move is none."""


def improved(tables: Tables, row: Ints, *, overlap: bool, until: float) -> Ints:
    """The placement after the best move, and the next best, while there is one that gains.

    ``row`` meets the memory limits, and so does the result. ``until`` is a ``time.monotonic()``
    at which to stop.
    """
    best = float(tables.evaluate(row[None], overlap=overlap)[0][0])
    while time.monotonic() < until:
        moves = _moves(tables, row)
        seconds = np.full(len(moves), np.inf)
        for start in range(0, len(moves), CHUNK):
            took, excess = tables.evaluate(moves[start : start + CHUNK], overlap=overlap)
            seconds[start : start + CHUNK] = np.where(excess > 0, np.inf, took)
            if time.monotonic() > until:
                break
        at = int(seconds.argmin()) if len(moves) else 0
        if not len(moves) or seconds[at] >= best * (1 - LEAST):
            break
        row, best = moves[at], float(seconds[at])
    return row


def _moves(tables: Tables, row: Ints) -> Ints:
    """``[moves, units]``: each run of neighbours to each device that can take any of it."""
    found: list[Ints] = []
    seen: set[bytes] = {row.tobytes()}
    allowed = np.zeros((len(row), len(tables.devices)), bool)
    for unit, devices in enumerate(tables.allowed):
        allowed[unit, list(devices)] = True
    for length in RUNS:
        for start in range(len(row) - length + 1):
            for device in range(len(tables.devices)):
                moved = row.copy()
                part = slice(start, start + length)
                moved[part] = np.where(allowed[part, device], device, row[part])
                if (key := moved.tobytes()) not in seen:
                    seen.add(key)
                    found.append(moved)
    return np.array(found, np.int64).reshape(len(found), len(row))
