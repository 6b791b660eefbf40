"""Reductions over one element: no reductions, and right on OpenCL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from tvm import s_tir, te, topi

import burnish
from burnish.targets.unit_sums import without_unit_sums
from opencl_support import require_device


def kernel(length: int) -> tvm.tirx.PrimFunc:
    x = te.placeholder((5, length), "float32", name="x")
    total, place = topi.sum(x * x, 1), topi.argmax(x, 1)
    return te.create_prim_func([x, total, place])


def starts(func: tvm.tirx.PrimFunc) -> int:
    found = []
    tvm_ffi.structural_walk(
        func.body, [(s_tir.SBlock, lambda block: found.append(block.init is not None))]
    )
    return sum(found)


def test_only_reductions_over_one_element_change():
    func = kernel(3)
    assert starts(func) > 0
    assert without_unit_sums(func.body).same_as(func.body)
    one = kernel(1)
    before = starts(one)
    changed = one.with_body(without_unit_sums(one.body))
    assert starts(changed) < before == starts(one), "the caller's function is untouched"
    assert without_unit_sums(changed.body).same_as(changed.body)
    x = np.float32([[2], [-3], [0], [1], [5]])
    total = tvm.runtime.tensor(np.zeros(5, np.float32))
    place = tvm.runtime.tensor(np.full(5, 9, np.int32))
    tvm.compile(changed, "llvm")(tvm.runtime.tensor(x), total, place)
    np.testing.assert_array_equal(total.numpy(), (x * x)[:, 0])
    np.testing.assert_array_equal(place.numpy(), np.zeros(5))


@pytest.mark.parametrize("norm", [torch.nn.RMSNorm(1), torch.nn.LayerNorm(1), torch.nn.Softmax(-1)])
def test_norms_over_one_element_on_opencl(norm):
    require_device()
    torch.manual_seed(0)
    x = torch.randn(5, 1)
    found = burnish.compile(norm.eval(), (x,), target="opencl", cache=False)(x)
    np.testing.assert_allclose(found, norm(x).detach(), rtol=1e-5, atol=1e-6)
