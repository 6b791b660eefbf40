"""Contractions in two bytes are summed in float32; casts from bfloat16 are kernels of their own."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from kernel_support import Built, Case, lowered, module, normal
from tvm import relax

from burnish.passes.part_casts import PartCasts
from burnish.passes.widen_contractions import WidenContractions
from relax_support import apply, op_names

op = relax.op
DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def products(x, w):
    """A product, rounded, read as float32 again, as before a norm."""
    y = op.matmul(x, w)
    return op.multiply(op.astype(op.add(y, y), "float32"), relax.const(0.5, "float32"))


def case(dtype: str) -> Case:
    inputs = {"x": normal(0, 40, 96).astype(DTYPES[dtype])}
    weights = {"w": normal(1, 96, 48).astype(DTYPES[dtype])}
    return Case(products, lambda x, w: x @ w, inputs, weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_float32_and_rounded_once(dtype: str) -> None:
    mod = module(case(dtype))
    after = apply(WidenContractions(), mod)
    assert op_names(after)[:4] == ["astype", "astype", "matmul", "astype"]
    given = case(dtype)
    x, w = given.inputs["x"], given.weights["w"]
    want = (x.astype("float64") @ w.astype("float64")).astype(DTYPES[dtype]).astype("float64")
    (got,) = Built(lowered(mod))(x)
    step = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    assert got.dtype == np.float32
    assert np.all(np.abs(got - want) <= step * np.maximum(np.abs(want), 2.0**-3))


def test_casts_of_what_is_computed_are_apart() -> None:
    names = op_names(apply(PartCasts(), module(case("bfloat16"))))
    assert names == ["matmul", "add", "call_tir", "multiply"]
    assert "call_tir" not in op_names(apply(PartCasts(), module(case("float16"))))
    parameter = Case(lambda x: op.astype(x, "float32"), lambda x: x, case("bfloat16").inputs)
    assert op_names(apply(PartCasts(), module(parameter))) == ["astype"]
