"""Where to cut, and into how many micro-batches: the least time, from the operators' costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from burnish.compiler.errors import ConfigError
from burnish.compiler.pipelines.costs import Cost

MOST_MICRO_BATCHES = 64


def cut_points(
    seconds: Sequence[np.ndarray], crossing: np.ndarray, bytes_per_second: float
) -> tuple[list[int], list[float]]:
    """Cuts for which the slowest stage is fastest, and what each stage then takes.

    ``seconds[s]`` are the bindings' on the device of stage ``s``. A stage's time is that of its
    bindings and of writing and reading what crosses its ends. Dynamic programming over the cuts:
    stages x bindings^2. A cut that nothing crosses is none.

    Raises :class:`ConfigError` where the model has too few operators for the stages.
    """
    count, stages = len(seconds[0]), len(seconds)
    if stages > count:
        raise ConfigError(f"{stages} devices for a model of {count} operators: give fewer")
    sums = [np.concatenate([[0.0], np.cumsum(s)]) for s in seconds]
    move = np.where(crossing > 0, crossing / bytes_per_second, math.inf)
    move[[0, -1]] = 0.0
    best = sums[0] + move
    best[0] = math.inf
    choices: list[np.ndarray] = []
    for stage in range(1, stages):
        new, chosen = np.full(count + 1, math.inf), np.zeros(count + 1, int)
        for end in range(stage + 1, count + 1):
            starts = np.arange(stage, end)
            spent = sums[stage][end] - sums[stage][starts] + move[starts] + move[end]
            worst = np.maximum(best[starts], spent)
            at = int(np.argmin(worst))
            new[end], chosen[end] = worst[at], starts[at]
        best = new
        choices.append(chosen)
    if not math.isfinite(best[count]):
        raise ConfigError(f"no {stages} stages of this model hand anything on: give fewer devices")
    points: list[int] = []
    end = count
    for chosen in reversed(choices):
        end = int(chosen[end])
        points.insert(0, end)
    edges = [0, *points, count]
    took = [
        float(sums[s][b] - sums[s][a] + move[a] + move[b])
        for s, (a, b) in enumerate(pairwise(edges))
    ]
    return points, took


@dataclass(frozen=True)
class Choice:
    """A number of micro-batches, where to cut then, what the stages take, and why."""

    micro_batches: int
    points: list[int]
    seconds: list[float]
    why: str


def choose(
    costs: Sequence[Cost],
    crossing: np.ndarray,
    peaks: Sequence[object],
    batch: int,
    asked: int | None,
    handoff_s: float,
) -> Choice:
    """The number of micro-batches of a ``batch`` for which it is done first.

    Costs and crossing bytes are those of the whole batch. More micro-batches fill the pipeline
    sooner (a smaller bubble), and each reads all weights and is handed over again. A number that
    does not divide the batch is not tried. ``asked`` gives it.
    """
    if asked is None:
        tried = [n for n in range(1, min(batch, MOST_MICRO_BATCHES) + 1) if batch % n == 0]
    else:
        tried = [asked]
    options = []
    for number in tried:
        seconds = [
            np.asarray([cost.seconds(peak, 1 / number) for cost in costs])  # type: ignore[arg-type]
            for peak in peaks
        ]
        read = min(peak.read for peak in peaks) * 1e9  # type: ignore[attr-defined]
        points, took = cut_points(seconds, crossing / number, read)
        whole = [s + handoff_s for s in took]
        options.append((sum(whole) + (number - 1) * max(whole), number, points, took))
    _, number, points, took = min(options, key=lambda option: option[:2])
    why = "asked for"
    if asked is None:
        others = ", ".join(f"{n}: {1e3 * t:.3g}" for t, n, _, _ in options[:8])
        why = f"expected milliseconds a batch by number: {others}"
    return Choice(number, points, took, why)
