"""Where to cut, and into how many micro-batches: the least time, from the operators' costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax, tirx

from burnish.compiler.errors import ConfigError
from burnish.compiler.pipelines.costs import Cost

MOST_MICRO_BATCHES = 64


@dataclass(frozen=True)
class Rates:
    """What a stage's device does: ``costs[i]`` seconds for binding ``i``, bytes a second."""

    seconds: np.ndarray
    read: float


def crossing_bytes(mod: tvm.IRModule, count: int) -> np.ndarray:
    """``[count + 1]``: bytes that are made before a cut after so many bindings, and read later.

    Inputs do not count: they lie where all stages see them.
    """
    main = mod["main"]
    everything = [binding for block in main.body.blocks for binding in block.bindings][:count]
    place = {binding.var: at for at, binding in enumerate(everything)}
    last: dict[relax.Var, int] = {}
    for at, binding in enumerate(everything):
        for var in relax.analysis.free_vars(binding.value):
            if var in place:
                last[var] = at
    crossing = np.zeros(count + 1)
    for var, end in last.items():
        crossing[place[var] + 1 : end + 1] += _bytes(var.ty)
    return crossing


def cut_points(
    seconds: Sequence[np.ndarray], crossing: np.ndarray, bytes_per_second: float
) -> tuple[list[int], list[float]]:
    """Cuts for which the slowest stage is fastest, and what each stage then takes.

    ``seconds[s]`` are the bindings' on the device of stage ``s``. A stage's time is that of its
    bindings and of writing and reading what crosses its ends. Dynamic programming over the cuts:
    stages x bindings^2.
    """
    count, stages = len(seconds[0]), len(seconds)
    if stages > count:
        raise ConfigError(f"{stages} devices for a model of {count} operators: give fewer")
    sums = [np.concatenate([[0.0], np.cumsum(s)]) for s in seconds]
    move = crossing / bytes_per_second
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
    points, end = [], count
    for chosen in reversed(choices):
        end = int(chosen[end])
        points.insert(0, end)
    edges = [0, *points, count]
    took = [
        float(sums[s][b] - sums[s][a] + move[a] + move[b])
        for s, (a, b) in enumerate(zip(edges, edges[1:], strict=False))
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
    best, number, points, took = min(options, key=lambda option: option[:2])
    why = "asked for"
    if asked is None:
        others = ", ".join(f"{n}: {1e3 * t:.3g}" for t, n, _, _ in options[:8])
        why = f"expected milliseconds a batch by number: {others}"
    return Choice(number, points, took, why)


def _bytes(ty: object) -> int:
    if isinstance(ty, relax.TupleType):
        return sum(map(_bytes, ty.fields))
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        return 0
    sizes = [int(n) if isinstance(n, tirx.IntImm) else 1 for n in ty.shape]
    return math.prod(sizes) * int(tvm.DataType(str(ty.dtype)).itemsize)
