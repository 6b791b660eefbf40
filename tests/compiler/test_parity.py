"""Distances between output trees."""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from burnish.compiler.parity import ParityError, leaves, parity, worst

FLOATS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=3, max_side=5),
    elements=st.floats(-1e6, 1e6, width=32),
)


@given(FLOATS)
def test_an_output_equals_itself(value):
    found = parity(value, torch.from_numpy(value.copy()))
    assert (found.max_abs, found.rel, found.exact) == (0, 0, 1)
    assert found.cosine == pytest.approx(1)
    assert found.argmax in (None, 1)


@given(FLOATS, st.floats(1e-3, 10))
def test_relative_error_is_of_the_largest_reference(ref, step):
    y = ref.astype(np.float64) + step
    found = parity(y, ref)
    largest = np.max(np.abs(ref))
    assert found.max_abs == pytest.approx(step, rel=1e-6)
    assert found.rel == pytest.approx(step / largest if largest else math.inf, rel=1e-6)


@given(FLOATS, st.floats(0.1, 10))
def test_cosine_ignores_scale(ref, factor):
    assert parity(ref.astype(np.float64) * factor, ref).cosine == pytest.approx(1)


def test_worst_output_counts():
    good, bad = np.ones(4), np.array([1.0, 0, 0, 0])
    found = parity({"a": good, "b": bad}, {"a": good, "b": np.array([0, 1.0, 0, 0])})
    assert found.rel == 1
    assert found.cosine == 0
    assert [output.path for output in found.outputs] == ["a", "b"]
    assert found.outputs[0].rel == 0


@dataclass
class Answer:
    logits: object
    state: object = None
    hidden: object = ()


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    "tree",
    [
        (np.ones(2), np.zeros(3)),
        [torch.ones(2), torch.zeros(3)],
        {"p": [np.ones(2)], "q": (torch.zeros(3),)},
        OrderedDict(p=np.ones(2), q=np.zeros(3)),
        Pair(np.ones(2), np.zeros(3)),
        Answer(torch.ones(2), None, (np.zeros(3),)),
    ],
)
def test_containers_do_not_matter(tree):
    assert parity(tree, (np.ones(2), np.zeros(3))).rel == 0


def test_paths():
    tree = {"a": [np.ones(1), {"b": np.ones(1)}], "c": None}
    assert [path for path, _ in leaves(tree)] == ["a[0]", "a[1].b"]
    assert [path for path, _ in leaves(3.0)] == ["output"]


def test_bfloat16():
    assert parity(torch.ones(3, dtype=torch.bfloat16), np.ones(3)).rel == 0


def test_integers_and_booleans():
    found = parity(torch.tensor([1, 2, 3, 5]), np.array([1, 2, 3, 4]))
    assert found.exact == 0.75
    assert found.max_abs == 1
    assert parity(np.array([2**53 + 1]), np.array([2**53])).exact == 0
    found = parity(np.array([True, False]), torch.tensor([True, True]))
    assert found.exact == 0.5


def test_argmax_and_ties():
    ref = np.array([[1.0, 9.0], [9.0, 1.0]])
    assert parity(np.array([[3.0, 2.0], [9.0, 1.0]]), ref).argmax == 0.5
    ref = np.array([[1.0, 9.0], [9.0, 8.9999]])
    assert parity(np.array([[1.0, 2.0], [1.0, 2.0]]), ref).argmax == 1
    assert parity(np.array([[np.nan, 2.0], [2.0, -np.inf]]), ref).argmax == 1


def test_nan_and_infinity():
    special = np.array([np.nan, np.inf, 1.0])
    assert parity(special, special.copy()).rel == 0
    found = parity(np.array([np.nan, 1.0]), np.array([0.0, 1.0]))
    assert found.rel == math.inf
    assert math.isnan(found.cosine)
    assert found.outputs[0].mismatched == 1
    assert not found.within(1e9)
    assert parity(np.array([-np.inf]), np.array([np.inf])).max_abs == math.inf


def test_zero_reference_and_empty():
    assert parity(np.zeros(2), np.zeros(2)).rel == 0
    assert parity(np.ones(2), np.zeros(2)).rel == math.inf
    assert parity(np.zeros((0, 3)), np.zeros((0, 3))).rel == 0


def test_worst_of_several_inputs():
    one = parity((np.ones(2), np.zeros(1)), (np.ones(2), np.zeros(1)))
    two = parity((np.ones(2) * 1.5, np.zeros(1)), (np.ones(2), np.zeros(1)))
    found = worst([one, two, one])
    assert found.rel == 0.5
    assert [output.rel for output in found.outputs] == [0.5, 0]


def test_structures_that_differ():
    with pytest.raises(ParityError, match=r"1 outputs \(\[0\] \[2\]\) against 2 in the reference"):
        parity((np.ones(2),), (np.ones(2), np.ones(3)))
    with pytest.raises(ParityError, match=r"output \[0\] has shape \[2\], the reference \[3\]"):
        parity((np.ones(2),), (np.ones(3),))
    with pytest.raises(ParityError, match="the reference has no outputs"):
        parity((), ())
    with pytest.raises(ParityError, match="no outputs were compared"):
        worst([])
    with pytest.raises(TypeError, match="an output is a str; expected arrays or numbers"):
        parity(("text",), (np.ones(1),))
