"""The convention about weights that every pass keeps."""

from __future__ import annotations

import numpy as np
import tvm_ffi
from kernel_support import Case, module, normal
from tvm import relax

from burnish.passes.params import (
    get_params,
    input_vars,
    num_inputs,
    param_bytes,
    weight_vars,
    with_main,
    with_params,
    without_params,
)
from burnish.passes.schedule_kernels import ScheduleKernels

op = relax.op


def example():
    return module(
        Case(
            lambda x, w, b: op.add(op.matmul(x, w), b),
            None,
            {"x": normal(0, 2, 3)},
            {"a.b.weight": normal(1, 3, 4), "a.b.bias": normal(2, 4)},
        )
    )


def test_inputs_come_first_and_weights_keep_their_dots():
    mod = example()
    assert num_inputs(mod) == 1
    assert [var.name for var in input_vars(mod)] == ["x"]
    assert [var.name for var in weight_vars(mod)] == ["a.b.weight", "a.b.bias"]
    assert list(get_params(mod)) == ["a.b.weight", "a.b.bias"]
    assert param_bytes(mod) == (3 * 4 + 4) * 4


def test_values_are_replaced_in_a_new_module():
    mod = example()
    before = tvm_ffi.structural_hash(mod)
    zeros = {name: np.zeros_like(value.numpy()) for name, value in get_params(mod).items()}
    after = with_params(mod, zeros)
    assert tvm_ffi.structural_hash(mod) == before
    assert get_params(mod)["a.b.bias"].numpy().any()
    assert not get_params(after)["a.b.bias"].numpy().any()
    main = mod["main"].with_attr("extra", 1)
    assert "extra" in with_main(mod, main)["main"].attrs
    assert "extra" not in mod["main"].attrs


def test_a_module_without_weights_has_none():
    mod = module(Case(lambda x: op.exp(x), None, {"x": normal(0, 2, 3)}))
    assert get_params(mod) == {}
    bare = without_params(mod)
    assert get_params(bare) == {}
    assert without_params(bare).same_as(bare)
    assert "params" not in str(without_params(example()).script())
    plain = with_main(mod, mod["main"].without_attr("num_input"))
    assert num_inputs(plain) == 1


def test_scheduling_changes_kernels_alone():
    mod = relax.transform.LegalizeOps()(example())
    seen = []

    def schedule(func):
        seen.append(func)
        return func.with_attr("seen", 1)

    before = tvm_ffi.structural_hash(mod)
    after = ScheduleKernels(schedule)(mod)
    assert tvm_ffi.structural_hash(mod) == before
    assert len(seen) == 2
    assert tvm_ffi.structural_equal(after["main"], mod["main"])
    assert list(get_params(after)) == list(get_params(mod))
