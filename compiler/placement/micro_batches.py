"""How many micro-batches a batch is split into, from what each size costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from burnish.compiler.placement.errors import PlacementError
from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.stages import Cut, cut_stages


@dataclass(frozen=True)
class Option:
    """A micro-batch size, how many of them a batch is, and what the batch takes then."""

    size: int
    micro_batches: int
    cut: Cut
    seconds: float
    bubble: float


def choose_micro_batches(
    problems: Mapping[int, Problem],
    batch: int,
    devices: Sequence[str],
    *,
    overlap: bool = False,
    depth: int = 2,
) -> tuple[Option, tuple[Option, ...]]:
    """The size that is done first, and all sizes that meet the limits.

    ``problems`` has the model's costs for each micro-batch size. Small ones fill the pipeline
    sooner (less bubble), large ones use the devices better: the costs say which counts more. A
    last micro-batch that is not full costs as much as the others. Raises the error of the smallest
    size where none can be cut, and :class:`PlacementError` where no size is given.
    """
    if not problems or batch < 1:
        raise PlacementError("give the costs of at least one micro-batch size, and a batch of 1")
    options, errors = [], []
    for size in sorted(problems):
        if size < 1:
            raise PlacementError(f"a micro-batch has 1 row or more, got {size}")
        try:
            cut = cut_stages(problems[size], devices, overlap=overlap, depth=depth)
        except PlacementError as error:
            errors.append(error)
            continue
        count = math.ceil(batch / size)
        options.append(Option(size, count, cut, cut.batch_seconds(count), cut.bubble(count)))
    if not options:
        raise errors[0]
    return min(options, key=lambda option: option.seconds), tuple(options)
