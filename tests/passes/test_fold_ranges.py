"""Ranges of known whole numbers become constants; others stay."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from burnish.passes.fold_ranges import MOST, FoldRanges
from burnish.passes.graph import constant_array


def module(*bounds: object, dtype: str = "int64", symbolic: bool = False) -> tvm.IRModule:
    size = tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType([size if symbolic else 3], "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            end = [size] if symbolic else []
            out = builder.emit_output(relax.op.arange(*bounds, *end, dtype=dtype))
        builder.emit_func_output(out)
    return builder.get()


def value(mod: tvm.IRModule) -> relax.Expr:
    return mod["main"].body.blocks[0].bindings[0].value


@pytest.mark.parametrize("bounds", [(5,), (-3, 7), (0, 20, 3), (9, -4, -2), (4, 4)])
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_a_known_range_is_a_constant(bounds, dtype):
    before = module(*bounds, dtype=dtype)
    after = FoldRanges()(before)
    array = constant_array(value(after))
    np.testing.assert_array_equal(array, np.arange(*bounds))
    assert str(array.dtype) == dtype
    assert constant_array(value(before)) is None
    tvm.ir.assert_structural_equal(FoldRanges()(after), after)


@pytest.mark.parametrize(
    "mod",
    [
        module(0, dtype="int64", symbolic=True),
        module(0.5, 4.0, 0.25, dtype="float32"),
        module(MOST + 1),
    ],
    ids=["open size", "floats", "large"],
)
def test_other_ranges_stay(mod):
    tvm.ir.assert_structural_equal(FoldRanges()(mod), mod)
