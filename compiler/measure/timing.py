"""A timing, and what may honestly be said of two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SPREAD_LIMIT = 0.10
"""Quartile spread over the median above which a timing is called noisy."""

BAND = 0.02
"""Differences within this share of the time are never called a difference."""


@dataclass(frozen=True)
class Timing:
    """Latency of one call, in milliseconds, over ``n`` samples.

    A sample is the mean of enough calls to last 2 ms, so ``p99`` of a much shorter call does
    not show its single slowest calls. ``rounds`` are the medians of the rounds kept, in turn
    with those of the runners timed beside it. ``peak_memory_bytes`` is the high-water mark of
    resident memory during calls over what the process held before loading (weights, code and
    activations; the runtime's own import and transients of loading apart); None where several
    runners share a process. ``alone_ms`` is the best call before taking turns began;
    ``other_load`` the mean number of cores other processes used meanwhile.
    """

    p50: float
    p95: float
    p99: float
    best: float
    mean: float
    n: int
    peak_memory_bytes: int | None = None
    load_s: float = 0.0
    first_ms: float = 0.0
    alone_ms: float = 0.0
    spread: float = 0.0
    noisy: bool = False
    other_load: float = 0.0
    rounds: tuple[float, ...] = ()
    note: str = ""

    @property
    def per_second(self) -> float:
        """Calls a second, one after the other."""
        return 1e3 / self.mean

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "rounds": list(self.rounds)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Timing:
        return cls(**{**data, "rounds": tuple(data.get("rounds", ()))})


def summarize(rounds: Sequence[Sequence[float]], **fields: Any) -> Timing:
    """The timing of samples [round][sample] in milliseconds."""
    samples = np.concatenate([np.asarray(r, float) for r in rounds])
    low, p50, high, p95, p99 = np.percentile(samples, [25, 50, 75, 95, 99])
    spread = float((high - low) / p50)
    return Timing(
        p50=float(p50),
        p95=float(p95),
        p99=float(p99),
        best=float(samples.min()),
        mean=float(samples.mean()),
        n=len(samples),
        spread=spread,
        noisy=bool(fields.pop("noisy", False)) or spread > SPREAD_LIMIT,
        rounds=tuple(float(np.median(r)) for r in rounds),
        **fields,
    )


def ratio_interval(a: Timing, b: Timing, *, draws: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of time(a) / time(b), by rounds taken in turn where they match."""
    rng = np.random.default_rng(0)
    x, y = np.asarray(a.rounds), np.asarray(b.rounds)
    if len(x) == len(y):
        ratios = x / y
        drawn = np.median(ratios[rng.integers(0, len(x), (draws, len(x)))], axis=1)
    else:
        drawn_a = np.median(x[rng.integers(0, len(x), (draws, len(x)))], axis=1)
        drawn_b = np.median(y[rng.integers(0, len(y), (draws, len(y)))], axis=1)
        drawn = drawn_a / drawn_b
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def faster(a: Timing, b: Timing, *, band: float = BAND) -> bool | None:
    """True when ``a`` is faster than ``b``, False when slower, None when it cannot be told.

    A claim must hold for the medians, over the whole bootstrap interval and by more than
    ``band``, and for the best samples.
    """
    if min(len(a.rounds), len(b.rounds)) < 3:
        return None
    low, high = ratio_interval(a, b)
    if high < 1 - band and a.best < b.best:
        return True
    if low > 1 + band and a.best > b.best:
        return False
    return None
