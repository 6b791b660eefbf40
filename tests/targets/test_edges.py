"""The schedule rules at the edges: NaN and infinities as torch has them, whole numbers, nothing."""

from __future__ import annotations

import pytest
from example_counts import MANY_COMPILED
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_support import check
from special_cases import EDGES, nothing

FEW = settings(max_examples=25)
"""In the full tier too: cases here build many kernels each, and ``test_any_edge`` draws more."""


@pytest.mark.parametrize("name", EDGES)
def test_at_the_edges_a_kernel_computes_what_torch_does(name):
    @FEW
    @given(case=EDGES[name])
    def agrees(case):
        check(case)

    agrees()


@pytest.mark.heavy
@MANY_COMPILED
@given(case=st.one_of(list(EDGES.values())))
def test_any_edge(case):
    check(case)


@pytest.mark.parametrize("name", nothing())
def test_an_empty_batch_gives_an_empty_result(name):
    check(nothing()[name])
