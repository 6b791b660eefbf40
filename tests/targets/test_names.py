"""Names of a kernel's parameters, made such that C has them."""

from __future__ import annotations

import pytest
import tvm
from tvm import te

from burnish.targets.names import with_c_names


def plus(name: str):
    a = te.placeholder((130,), "float32", name=name)
    b = te.compute(a.shape, lambda i: a[i] + 1, name="b")
    return te.create_prim_func([a, b]).with_attr("global_symbol", "plus")


@pytest.mark.parametrize(
    ("given", "expected"),
    [("2.weight", "v_2_weight"), ("a/b.c", "a_b_c"), ("jax2tf_f_/1", "jax2tf_f__1"), ("ü", "_")],
)
def test_a_name_that_c_has_not_is_changed_wherever_it_stands(given, expected):
    func = plus(given)
    found = with_c_names(func)
    assert [param.name for param in found.params] == [expected, "b"]
    assert f"{expected}[v_i]" in found.script()
    assert given not in found.script()
    tvm.ir.assert_structural_equal(func, found)


def test_other_names_stay_and_so_does_the_kernel():
    func = plus("weight_2")
    assert with_c_names(func) is func
