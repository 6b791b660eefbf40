"""float32 to bfloat16 and back, in kernels."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from kernel_support import Built, Case, lowered, module
from tvm import relax

BFLOAT16 = ml_dtypes.bfloat16


@pytest.fixture(scope="module")
def narrow() -> Built:
    case = Case(
        lambda x: relax.op.astype(x, "bfloat16"),
        lambda x: x,
        {"x": np.zeros(64, "float32")},
        shapes={"x": ["n"]},
    )
    return Built(lowered(module(case)))


@pytest.fixture(scope="module")
def widen() -> Built:
    case = Case(
        lambda x: relax.op.exp(relax.op.astype(x, "float32")),
        lambda x: x,
        {"x": np.zeros(64, BFLOAT16)},
        shapes={"x": ["n"]},
    )
    return Built(lowered(module(case)))


def rounded(x: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return x.astype(BFLOAT16)


def same(got: np.ndarray, want: np.ndarray) -> None:
    nan = np.isnan(want.astype("float32"))
    np.testing.assert_array_equal(np.isnan(got.astype("float32")), nan)
    np.testing.assert_array_equal(got.view("uint16")[~nan], want.view("uint16")[~nan])


def test_special_values_and_ties(narrow):
    bits = [
        *(0x7F800000, 0xFF800000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFC00000),
        *(0x00000001, 0x80000001, 0x00008000, 0x00008001, 0x00018000, 0x007FFFFF),
        *(0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7FFFFF, 0x7F7F7FFF),
        *(0x00000000, 0x80000000),
    ]
    x = np.array(bits, "uint32").view("float32")
    same(narrow(x)[0], rounded(x))


@given(arrays.arrays("uint32", st.integers(0, 200), elements=st.integers(0, 2**32 - 1)))
def test_any_number_is_rounded_to_nearest_even(narrow, bits):
    x = bits.view("float32")
    if x.size:
        same(narrow(x)[0], rounded(x))


def test_every_bfloat16_widens_exactly_inside_of_other_functions(widen):
    x = np.arange(2**16, dtype="uint32").astype("uint16").view(BFLOAT16)
    with np.errstate(all="ignore"):
        want = np.exp(x.astype("float64"))
    got = widen(x)[0]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    inside = (want > 1.2e-38) & (want < 3e38)
    np.testing.assert_allclose(got[inside], want[inside], rtol=1e-6)


def test_the_operand_is_computed_once():
    case = Case(
        lambda x: relax.op.astype(relax.op.tanh(x), "bfloat16"),
        lambda x: x,
        {"x": np.linspace(-3, 3, 50, dtype="float32")},
    )
    built = Built(lowered(module(case)))
    x = case.inputs["x"]
    got = built(x)[0].astype("float32")
    assert np.abs(got - np.tanh(x)).max() <= 2**-8
    text = str(tvm.IRModule({"k": built.kernels[0].without_attr("global_symbol")}))
    assert text.count("uint16") <= 8
