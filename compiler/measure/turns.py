"""Rounds in which loaded runners take turns, each alone on the machine while it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from burnish.compiler.measure.load import LoadMeter, wait_asleep
from burnish.compiler.measure.timing import Timing, summarize

SAMPLE_S = 0.002
"""Seconds a sample lasts at least, in as many calls as that takes."""

TURN_S = 0.03
"""Seconds of samples in one turn, at most eight samples."""

WARM_LIMIT_S = 0.2
"""Calls shorter than this are warmed by some before each turn: others used the caches."""

LOAD_LIMIT = 0.25
"""Cores used by other processes above which a round is taken again."""

ALONE_LIMIT = 1.05
"""A best time over this many times the one taken alone is void: the runners disturb each other."""

MIN_ROUNDS = 3


@dataclass
class Turn:
    """A runner that is loaded and has its inputs: how to sample it, and what came of it."""

    name: str
    pid: int
    sample: Callable[[int, float, float], list[float]]
    call_s: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    alone_ms: float = 0.0
    rounds: list[tuple[bool, list[float]]] = field(default_factory=list)

    def take(self) -> list[float]:
        """One turn's samples, in milliseconds."""
        sample_s = max(SAMPLE_S, self.call_s)
        return self.sample(min(8, max(1, math.ceil(TURN_S / sample_s))), SAMPLE_S, WARM_LIMIT_S)


def take_rounds(turns: list[Turn], *, rounds: int, budget_s: float, retries: int) -> None:
    """Fill ``rounds`` of each turn: until that many were undisturbed, or ``budget_s`` is spent.

    At least three rounds are taken whatever the budget. A disturbed round is taken again, at
    most ``retries`` times ``rounds`` in all. Every second round runs in reverse order.
    """
    pids = {turn.pid for turn in turns}
    start = time.monotonic()
    for turn in turns:
        wait_asleep(pids - {turn.pid})
        turn.alone_ms = min(turn.take())
    quiet = 0
    for number in range(rounds * (1 + retries)):
        spent = time.monotonic() - start
        if quiet >= rounds or (number >= MIN_ROUNDS and spent + spent / (number + 1) > budget_s):
            return
        meter = LoadMeter(pids)
        asleep, taken = True, []
        for turn in turns if number % 2 == 0 else turns[::-1]:
            asleep &= wait_asleep(pids - {turn.pid})
            taken.append((turn, turn.take()))
        alone = asleep and meter.others() <= LOAD_LIMIT
        quiet += alone
        for turn, samples in taken:
            turn.rounds.append((alone, samples))


def timing_of(turn: Turn, other_load: float) -> Timing:
    """The timing of a turn's rounds: the undisturbed ones, or all and noisy where they are few."""
    kept = [samples for alone, samples in turn.rounds if alone]
    disturbed = len(kept) < min(MIN_ROUNDS, len(turn.rounds))
    rounds = [samples for _, samples in turn.rounds] if disturbed else kept
    best = min(min(samples) for samples in rounds)
    return summarize(
        rounds,
        noisy=disturbed or best > ALONE_LIMIT * turn.alone_ms,
        alone_ms=turn.alone_ms,
        other_load=other_load,
        **turn.facts,
    )
