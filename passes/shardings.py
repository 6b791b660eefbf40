"""How a tensor is spread over the processes of a group: arithmetic on shapes and ranges, no IR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

ALL_REDUCE = "burnish.all_reduce"
"""The packed function ``(x, number, result)``: the sum of every rank's ``x``."""
ALL_GATHER = "burnish.all_gather"
"""``(x, number, axis, start, result)``: every rank's ``x`` at its place of ``axis``."""
Ranges = tuple[tuple[int, int], ...]
"""What each process has of an axis: ``(start, stop)`` by rank."""


@dataclass(frozen=True)
class Split:
    """A tensor of which rank ``r`` has the places ``ranges[r]`` of ``axis`` (0 or more).

    The ranges cover the axis; they may overlap, where two ranks need the same.
    """

    axis: int
    ranges: Ranges

    def on(self, axis: int) -> Split:
        """The same ranges of another axis."""
        return Split(axis, self.ranges)

    def covers(self, other: Split) -> bool:
        """Whether each rank has all that it would have of ``other``."""
        return self.axis == other.axis and all(
            a <= c and d <= b for (a, b), (c, d) in zip(self.ranges, other.ranges, strict=True)
        )

    def local(self, shape: Sequence[int], rank: int) -> tuple[int, ...]:
        """The shape of a rank's part of a tensor of this shape."""
        start, stop = self.ranges[rank]
        return tuple(stop - start if at == self.axis else n for at, n in enumerate(shape))


def even(units: int, parts: int, unit: int = 1) -> Ranges:
    """``units`` of ``unit`` places dealt out in order, the first ranks getting what is left over.

    9 units, 2 parts -> (0, 5), (5, 9). Raises ``ValueError`` where a rank would get none.
    """
    if units < parts:
        raise ValueError(f"{units} units cannot be split over {parts} processes")
    few, more = divmod(units, parts)
    edges = [rank * few + min(rank, more) for rank in range(parts + 1)]
    return tuple((a * unit, b * unit) for a, b in pairwise(edges))


def reshaped(split: Split, before: Sequence[int], after: Sequence[int]) -> Split | None:
    """Where the split axis is after a reshape; ``None`` where no axis is made of whole parts.

    1. The axis must be the outermost of those that are joined or cut with it.
    2. An axis that is cut, ``576 -> 9 x 64``, needs ranges of whole outer places.
    3. An axis that is joined, ``9 x 64 -> 576``, takes its inner places along.
    """
    found = _outermost(split.axis, before, after)
    if found is None:
        return None
    axis, size, new = found, before[split.axis], after[found]
    if new >= size:
        if new % size:
            return None
        times = new // size
        return Split(axis, tuple((a * times, b * times) for a, b in split.ranges))
    if size % new:
        return None
    times = size // new
    if any(edge % times for one in split.ranges for edge in one):
        return None
    return Split(axis, tuple((a // times, b // times) for a, b in split.ranges))


def covering(split: Split, before: Sequence[int], after: Sequence[int]) -> Split | None:
    """What each rank needs of a reshape's operand for its ranges of the result.

    As :func:`reshaped` from ``after`` to ``before``, but ranges that are no whole outer places
    get the whole of those that they touch.
    """
    found = _outermost(split.axis, after, before)
    if found is None:
        return None
    size, new = after[split.axis], before[found]
    if new >= size:
        return reshaped(split, after, before)
    if size % new:
        return None
    times = size // new
    return Split(found, tuple((a // times, -(-b // times)) for a, b in split.ranges))


def _outermost(axis: int, before: Sequence[int], after: Sequence[int]) -> int | None:
    """The axis of ``after`` whose outer places are those of ``axis`` of ``before``."""
    for old, new in _groups(before, after):
        if axis in old:
            first = next(at for at in old if before[at] != 1 or at == axis)
            candidates = [at for at in new if after[at] != 1]
            return candidates[0] if first == axis and candidates else None
    return None


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Axes of both that hold the same elements, the fewest together."""
    found = []
    i = j = 0
    while i < len(before) or j < len(after):
        old: list[int] = []
        new: list[int] = []
        left = right = 1
        while not old or not new or left != right:
            if i < len(before) and (not old or left < right or j >= len(after)):
                left *= before[i]
                old.append(i)
                i += 1
            elif j < len(after):
                right *= after[j]
                new.append(j)
                j += 1
            else:
                break
        found.append((old, new))
    return found


__all__ = ["ALL_GATHER", "ALL_REDUCE", "Ranges", "Split", "covering", "even", "reshaped"]
