"""The time of an operator that was not measured, from those that were.

Operators of the same kind (the same graph operators fused, the same data type) run at similar
rates: an operator's time over what a simple model of the device gives for it (a call, its
arithmetic, its bytes, each at the best rate seen) changes slowly with size. So the estimate is the
model's time, times that ratio of the nearest operators by size in a logarithmic scale. The error
is what the same rule is off by, for those nearest ones, each left out in turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NEAREST = 4
UNKNOWN = 1.0
"""The error, as a share, of an estimate that nothing can be compared with."""
_SIZES = ("flops", "elementwise", "transcendental", "bytes")


def estimated(work: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> Any:
    """The time of an operator that does ``work``; None where none of ``known`` is of its kind."""
    from burnish.compiler.placement.costs import FAR, NEAR, OperatorTime

    found = {}
    for ring in (FAR, NEAR):
        entries = [entry for entry in known if entry["weights"] == ring]
        alike = [entry for entry in entries if _kind(entry) == _kind(work)]
        if not alike:
            return None
        rates = _rates(entries)
        found[ring] = _from(work, alike, rates)
    error = max(found[FAR][1], found[NEAR][1])
    return OperatorTime(found[FAR][0], found[NEAR][0], error, estimated=True)


def _kind(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(entry["operators"]), entry["dtype"]


def _seconds(entry: Mapping[str, Any]) -> float:
    return float(entry["timing"]["p50"]) / 1e3


def _rates(entries: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Seconds of a call, and of one unit of each size: those of the fastest operator."""
    call = min(map(_seconds, entries))
    best = [
        min((_seconds(e) / e[size] for e in entries if e[size]), default=0.0) for size in _SIZES
    ]
    return np.array([call, *best])


def _model(work: Mapping[str, Any], rates: np.ndarray) -> float:
    return float(rates[0] + sum(work[s] * rate for s, rate in zip(_SIZES, rates[1:], strict=True)))


def _from(
    work: Mapping[str, Any], alike: Sequence[Mapping[str, Any]], rates: np.ndarray
) -> tuple[float, float]:
    """Seconds and their error, from operators of the same kind."""
    nearest = sorted(alike, key=lambda entry: _distance(work, entry))[:NEAREST]
    seconds = _model(work, rates) * _ratio(work, nearest, rates)
    if len(nearest) < 2:
        return seconds, UNKNOWN
    off = []
    for entry in nearest:
        rest = [other for other in nearest if other is not entry]
        guess = _model(entry, rates) * _ratio(entry, rest, rates)
        off.append(abs(math.log(guess / _seconds(entry))))
    return seconds, math.expm1(max(off))


def _ratio(
    work: Mapping[str, Any], nearest: Sequence[Mapping[str, Any]], rates: np.ndarray
) -> float:
    weights = np.array([1 / (0.05 + _distance(work, entry)) for entry in nearest])
    logs = np.array([math.log(_seconds(entry) / _model(entry, rates)) for entry in nearest])
    return math.exp(float((weights * logs).sum() / weights.sum()))


def _distance(work: Mapping[str, Any], entry: Mapping[str, Any]) -> float:
    return sum(abs(math.log((1 + work[size]) / (1 + entry[size]))) for size in _SIZES)
