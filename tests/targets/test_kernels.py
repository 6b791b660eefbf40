"""Every schedule rule against float64, on sizes that do not fit the tiles."""

from __future__ import annotations

import pytest
from example_counts import MANY_COMPILED
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import FAMILIES
from kernel_support import check

# These share their schedule rules with others: one property for all of them.
RARE = ("conv1d", "conv2d transpose", "adaptive pooling", "group norm", "resize", "ordering")
GROUPS = {
    **{name: cases for name, cases in FAMILIES.items() if name not in RARE},
    "rare": st.one_of([FAMILIES[name] for name in RARE]),
}


@pytest.mark.parametrize("group", GROUPS)
def test_a_kernel_computes_what_float64_does(group):
    @given(case=GROUPS[group])
    def agrees(case):
        check(case)

    agrees()


@pytest.mark.heavy
@MANY_COMPILED
@given(case=st.one_of(list(FAMILIES.values())))
def test_any_operator_on_any_shape(case):
    check(case)
