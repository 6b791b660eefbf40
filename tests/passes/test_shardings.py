"""Ranges of split axes, against what NumPy makes of the same reshape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.passes.shardings import Split, covering, even, reshaped


def test_deals_out_in_order() -> None:
    assert even(9, 2) == ((0, 5), (5, 9))
    assert even(9, 4, 64) == ((0, 192), (192, 320), (320, 448), (448, 576))
    with pytest.raises(ValueError, match="3 units cannot be split over 4 processes"):
        even(3, 4)


def test_covers() -> None:
    wide, narrow = Split(1, ((0, 6), (3, 9))), Split(1, ((0, 5), (5, 9)))
    assert wide.covers(narrow)
    assert not narrow.covers(wide)
    assert not wide.covers(narrow.on(0))


def test_shared_heads_go_to_every_rank_that_reads_them() -> None:
    heads = Split(1, even(9, 2))
    assert covering(heads, (1, 3, 3, 8, 4), (1, 9, 8, 4)) == Split(1, ((0, 2), (1, 3)))


def test_declines_what_is_not_made_of_whole_parts() -> None:
    assert reshaped(Split(2, even(8, 2)), (1, 4, 8), (1, 32)) is None  # an inner axis
    assert reshaped(Split(1, even(3, 3)), (2, 3), (3, 2)) is None
    assert reshaped(Split(0, ((0, 3), (3, 4))), (4,), (2, 2)) is None  # half of an outer place


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Two shapes of the same elements, joined and cut at random, and an axis of the first."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))

    def shape() -> tuple[int, ...]:
        found, size = [], 1
        for n in sizes:
            size *= n
            if draw(st.booleans()):
                found.append(size)
                size = 1
        return (*found, size)

    before, after = shape(), shape()
    return before, after, draw(st.integers(0, len(before) - 1))


@given(reshapes(), st.integers(1, 3))
def test_parts_reshaped_are_parts_of_the_whole(case, parts: int) -> None:
    before, after, axis = case
    if before[axis] < max(2, parts):
        return
    split = Split(axis, even(before[axis], parts))
    found = reshaped(split, before, after)
    if found is None:
        return
    whole = np.arange(np.prod(before)).reshape(before)
    for rank in range(parts):
        part = np.take(whole, range(*split.ranges[rank]), axis)
        wanted = np.take(whole.reshape(after), range(*found.ranges[rank]), found.axis)
        assert part.shape == split.local(before, rank)
        np.testing.assert_array_equal(part.reshape(found.local(after, rank)), wanted)
