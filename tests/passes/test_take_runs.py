"""Takes by constant places that are a few runs are copies of ranges, fused like any map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from example_counts import COMPILED
from hypothesis import given
from hypothesis import strategies as st
from kernel_support import Case, check, lowered, module, normal
from tvm import relax, tirx

from burnish.passes.take_runs import MOST_RUNS, Run, runs

op = relax.op


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0, 1, 2], [Run(0, 3, 0, 1)]),
        ([2, 1, 0, 1, 2, 1], [Run(0, 3, 2, -1), Run(3, 5, 1, 1), Run(5, 6, 1, 1)]),
        ([0, 0, 0, 1, 2], [Run(0, 3, 0, 0), Run(3, 5, 1, 1)]),
        ([3, 4, 0, 1], [Run(0, 2, 3, 1), Run(2, 4, 0, 1)]),
        ([7], [Run(0, 1, 7, 1)]),
        ([0, 2, 4], [Run(0, 1, 0, 1), Run(1, 2, 2, 1), Run(2, 3, 4, 1)]),
    ],
)
def test_places_become_runs(places, expected):
    assert runs(places) == expected


@given(places=st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_runs_give_the_places_back(places):
    found = [
        part.first + part.step * (i - part.start)
        for part in runs(places)
        for i in range(part.start, part.stop)
    ]
    assert found == places


def taken(places: list[int], shape: tuple[int, ...], axis: int) -> Case:
    index = np.array(places, "int64")
    return Case(
        lambda x: op.take(op.nn.relu(x), relax.const(index, "int64"), axis),
        lambda x: x.relu().index_select(axis, torch.from_numpy(index)),
        {"x": normal(1, *shape)},
    )


@COMPILED
@given(
    shape=st.lists(st.sampled_from([1, 3, 7, 16, 17, 70]), min_size=1, max_size=3),
    data=st.data(),
)
def test_any_runs_along_any_axis(shape, data):
    axis = data.draw(st.integers(0, len(shape) - 1))
    size = shape[axis]
    kind = data.draw(st.sampled_from(["reflect", "replicate", "roll", "flip", "any"]))
    before = data.draw(st.integers(0, size - 1))
    line = np.arange(size)
    places = {
        "reflect": lambda: np.pad(line, (before, before), "reflect"),
        "replicate": lambda: np.pad(line, (before, 2), "edge"),
        "roll": lambda: np.roll(line, before),
        "flip": lambda: line[::-1],
        "any": lambda: np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1))),
    }[kind]()
    check(taken(places.tolist(), tuple(shape), axis))


def kernels(case: Case) -> list[tirx.PrimFunc]:
    return [f for f in lowered(module(case)).functions.values() if isinstance(f, tirx.PrimFunc)]


def test_padding_by_mirrors_is_one_kernel_without_a_table():
    rows, columns = [3, 2, 1, *range(80), 78, 77], [1, *range(90), 88]

    def ours(x):
        tall = op.take(x, relax.const(np.array(rows), "int64"), 2)
        return op.nn.relu(op.take(tall, relax.const(np.array(columns), "int64"), 3))

    case = Case(
        ours,
        lambda x: F.pad(x, (1, 1, 3, 2), "reflect").relu(),
        {"x": normal(1, 2, 3, 80, 90)},
    )
    (kernel,) = kernels(case)
    assert len(kernel.params) == 2
    check(case)


def test_places_of_many_runs_or_outside_keep_their_table():
    scattered = [0, 2, 4, 6, 1, 3, 5, 7, 0, 3, 6]
    assert len(runs(scattered)) > MOST_RUNS
    check(taken(scattered, (5, 8), 1))
    for places in (scattered, [0, 1, 8]):
        found = kernels(taken(places, (5, 8), 1))
        assert any("T_take" in kernel.script() for kernel in found)
