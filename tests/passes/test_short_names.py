"""Names of kernels that files can have."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, topi

from burnish.passes.short_names import ShortenNames
from relax_support import apply, named, run

LONG = "fused_" + "add_" * 100


def module() -> tvm.IRModule:
    """Two kernels whose long names differ at the end only, and one with a short name."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([3], "float32"))
    with builder.function("main", [x], attrs={"num_input": 1}):
        a = builder.emit_te(topi.exp, x, primfunc_name_hint=f"{LONG}a")
        b = builder.emit_te(topi.tanh, a, primfunc_name_hint=f"{LONG}b")
        builder.emit_func_output(builder.emit_te(topi.abs, b, primfunc_name_hint="short"))
    return named(builder.get(), {})


@pytest.mark.parametrize("longest", [20, 80])
def test_long_names_are_cut_and_stay_apart(longest):
    mod = module()
    new = apply(ShortenNames(longest), mod)
    names = sorted(var.name_hint for var in new.functions)
    assert len(names) == len(set(names)) == 4
    assert {"main", "short"} <= set(names)
    assert all(len(name) <= longest for name in names)
    assert sum(name.startswith("fused_add_") for name in names) == 2
    x = np.array([-1, 0, 2], np.float32)
    assert np.array_equal(run(new, x)[0], run(mod, x)[0])


def test_short_names_stay():
    mod = module()
    assert ShortenNames(1000)(mod).same_as(mod)
