"""Every schedule rule against float64, on sizes that do not fit the tiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import FAMILIES
from kernel_support import check


@pytest.mark.parametrize("family", FAMILIES)
def test_a_kernel_computes_what_float64_does(family):
    @given(case=FAMILIES[family])
    def agrees(case):
        check(case)

    agrees()


@pytest.mark.heavy
@given(case=st.one_of(list(FAMILIES.values())))
def test_any_operator_on_any_shape(case):
    check(case)
