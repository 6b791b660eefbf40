"""Attention as one kernel that any target can schedule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import tvm_ffi
from kernel_cases import attention_reference
from kernel_support import Case, compare, module, normal, reference
from tvm import relax, tirx

from burnish.passes.lower_attention import ATTENTION, LowerAttention
from relax_support import apply, op_names, run

op = relax.op


def case(bias: tuple[int, ...] | None = None, causal: str | None = None, scale=None, m=5, n=7):
    inputs = {
        "q": normal(0, 2, m, 3, 8),
        "k": normal(1, 2, n, 3, 8),
        "v": normal(2, 2, n, 3, 4),
    }
    if bias is not None:
        inputs["bias"] = normal(3, *bias)
    return Case(
        lambda q, k, v, bias=None: op.nn.attention(q, k, v, bias, scale, causal),
        lambda q, k, v, bias=None: attention_reference(q, k, v, bias, causal, scale),
        inputs,
    )


def kernel_info(mod) -> dict[str, object]:
    (kernel,) = [f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc)]
    return {str(k): v for k, v in kernel.attrs[ATTENTION].items()}


@pytest.mark.parametrize("bias", [None, (2, 3, 5, 7), (1, 1, 5, 7), (2, 1, 1, 7)])
@pytest.mark.parametrize("causal", [None, "TopLeft", "BottomRight"])
def test_attention_becomes_one_kernel_with_its_definition_as_body(bias, causal):
    """TVM's own lowering of the body agrees, so every target can fall back to it."""
    example = case(bias, causal)
    mod = module(example)
    after = apply(LowerAttention(), mod)
    assert op_names(after) == ["call_tir"]
    info = kernel_info(after)
    assert math.isclose(float(info["scale"]), 8**-0.5)
    assert int(info["causal"]) == {None: 0, "TopLeft": 1, "BottomRight": 2}[causal]
    assert int(info["bias"]) == (bias is not None)
    compare(run(after, *example.inputs.values()), reference(example), 1e-5)
    assert tvm_ffi.structural_equal(LowerAttention()(after)["main"], after["main"])


def test_the_scale_may_be_given():
    example = case(scale=0.25)
    after = apply(LowerAttention(), module(example))
    assert float(kernel_info(after)["scale"]) == 0.25
    compare(run(after, *example.inputs.values()), reference(example), 1e-5)


def test_half_is_widened_and_windows_are_left_alone():
    def windowed(q, k, v):
        return op.nn.attention(q, k, v, causal_mask="TopLeft", window_size=2)

    inputs = case().inputs
    mod = module(Case(windowed, None, inputs))
    assert op_names(apply(LowerAttention(), mod)) == ["nn.attention"]
    half = {name: value.astype(np.float16) for name, value in inputs.items()}
    mod = module(Case(lambda q, k, v: op.nn.attention(q, k, v), None, half))
    after = apply(LowerAttention(), mod)
    assert op_names(after) == ["astype", "astype", "astype", "call_tir", "astype"]
    (got,) = run(after, *half.values())
    assert got.dtype == np.float16
    compare([got.astype(np.float32)], reference(Case(None, case().expected, half)), 2e-3)


def test_the_reference_of_these_tests_is_that_of_pytorch():
    q, k, v = (torch.from_numpy(a).double() for a in case().inputs.values())
    want = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(1, 2) for t in (q, k, v)), is_causal=True
    )
    got = attention_reference(q, k, v, causal="TopLeft")
    torch.testing.assert_close(got, want.transpose(1, 2))
