"""Products of few rows, laid out for OpenCL and for CUDA and run on OpenCL: against float64."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import opencl_kernels
import pytest
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from opencl_kernels import ANY, kernel, normal, source, x
from tvm import te, tirx, topi

from burnish.passes.dequantize import CodeLayout
from burnish.passes.lower_contractions import (
    attention_mix,
    attention_scores,
    matmul,
    matmul_of_codes,
)
from burnish.passes.qparams import pack_bits, symmetric_zero_point
from burnish.targets.cuda.schedule import DEVICE
from burnish.targets.gpu import matvec
from burnish.targets.opencl.schedule import device_of, schedule
from burnish.targets.opencl.target import PRESETS
from burnish.targets.rules import RULE

check = partial(opencl_kernels.check, rule="matvec")


def check_product(m: int, n: int, k: int, turned: bool, dtype: str = "float32") -> None:
    a, b = normal(m, k, dtype=dtype), normal(*((n, k) if turned else (k, n)), dtype=dtype)
    bias = normal(n)
    one, two, three = x(m, k, dtype=dtype), x(*b.shape, dtype=dtype, name="w"), x(n, name="b")
    y = matmul(False, turned, "float32")(one, two)
    out = te.compute(y.shape, lambda i, j: te.max(y[i, j] + three[j], 0.0), name="out")
    wide = [array.astype("float64") for array in (a, b)]
    want = np.maximum(wide[0] @ (wide[1].T if turned else wide[1]) + bias, 0)
    check([one, two, three, out], [a, b, bias], want)


SIZES = {"m": st.integers(1, 8), "n": st.integers(2, 150), "k": st.integers(8, 400)}


@settings(max_examples=5)
@given(**SIZES, turned=st.booleans(), dtype=st.sampled_from(["float32", "bfloat16"]))
def test_any_product_of_few_rows(m, n, k, turned, dtype):
    check_product(m, n, k, turned, dtype)


@pytest.mark.heavy
@settings(max_examples=40)  # OpenCL's driver builds a program an example
@given(**SIZES, turned=st.booleans(), dtype=st.sampled_from(["float32", "bfloat16"]))
def test_many_products_of_few_rows(m, n, k, turned, dtype):
    check_product(m, n, k, turned, dtype)


def check_codes(bits: int, m: int, n: int, k: int, group: int, symmetric: bool) -> None:
    """``group`` steps of ``k`` share a scale; 0 for all of them."""
    k = k // max(group, 1) * max(group, 1) or group
    layout = CodeLayout(
        shape=(n, k),
        dtype="float32",
        bits=bits,
        symmetric=symmetric,
        granularity="group" if group else "channel",
        group_size=group,
        group_axis=1,
        channel_axis=0,
        reduction_axes=(1,),
        scale_shape=(n, k // group if group else 1),
        scale_dtype="float32",
    )
    rng = np.random.default_rng(n)
    low, high = (-128, 127) if bits == 8 and symmetric else (0, 2**bits)
    codes = rng.integers(low, high, (n, k))
    stored = codes.astype(layout.code_dtype) if bits == 8 else pack_bits(codes, bits)
    scale = rng.uniform(0.5, 1, layout.scale_shape).astype("float32")
    zero = rng.integers(0, 2**bits, layout.scale_shape).astype("uint8")
    given = [stored, scale] if symmetric else [stored, scale, zero]
    a = normal(m, k)
    tensors = [
        x(*array.shape, dtype=str(array.dtype), name=f"p{i}") for i, array in enumerate([a, *given])
    ]
    out = matmul_of_codes(True, "float32", layout)(*tensors)
    middle = symmetric_zero_point(bits) if symmetric else np.repeat(zero, k // zero.shape[1], 1)
    weight = (codes - middle) * np.repeat(scale, k // scale.shape[1], 1).astype("float64")
    check([*tensors, out], [a, *given], a.astype("float64") @ weight.T)


CODES = {
    "bits": st.sampled_from([2, 4, 8]),
    "m": st.integers(1, 8),
    "n": st.integers(2, 60),
    "k": st.integers(33, 300),
    "group": st.sampled_from([0, 32, 64]),
    "symmetric": st.booleans(),
}


@settings(max_examples=5)
@given(**CODES)
def test_any_product_with_codes(bits, m, n, k, group, symmetric):
    check_codes(bits, m, n, k, group, symmetric)


@pytest.mark.heavy
@settings(max_examples=40)  # OpenCL's driver builds a program an example
@given(**CODES)
def test_many_products_with_codes(bits, m, n, k, group, symmetric):
    check_codes(bits, m, n, k, group, symmetric)


def heads(many: Any, keys: Any) -> tuple[te.Tensor, te.Tensor, te.Tensor]:
    """A step of attention: a query of 4 heads, 2 of keys and values."""
    query = x(many, 1, 4, 64, name="q")
    return query, x(many, keys, 2, 64, name="k"), x(many, 4, 1, keys, name="s")


@pytest.mark.parametrize("open_", ["nothing", "keys", "batch"])
def test_attention_of_one_query(open_):
    """Weights are the keys and values; their number, or the sequences', may be open, or none."""
    n = tirx.Var("n", "int64")
    many, keys = (n if open_ == name else size for name, size in (("batch", 2), ("keys", 35)))
    q, k, s = heads(many, keys)
    scores = attention_scores(0.5, 0)
    for size in (35,) if open_ == "nothing" else (0, 3):
        batch, length = (
            size if open_ == name else known for name, known in (("batch", 2), ("keys", 35))
        )
        query, key = normal(batch, 1, 4, 64), normal(batch, length, 2, 64)
        twice = np.repeat(key, 2, 2).astype("float64")
        want = 0.5 * np.einsum("bmhd,bnhd->bhmn", query, twice)
        check([q, k, scores(q, k)], [query, key], want)
        shares = normal(batch, 4, 1, length)
        want = np.einsum("bhmn,bnhe->bmhe", shares, twice)
        check([s, k, attention_mix("float32")(s, k)], [shares, key], want)


def test_sums_over_an_open_extent():
    n = tirx.Var("n", "int64")
    a, b = x(3, n, name="a"), x(20, n, name="b")
    for size in (0, 1, 70):
        given = [normal(3, size), normal(20, size)]
        check([a, b, matmul(False, True, "float32")(a, b)], given, given[0] @ given[1].T)


def test_what_follows_may_have_another_shape():
    a, b = x(2, 1, 40, name="a"), x(24, 40, name="b")
    y = matmul(False, True, "float32")(a, b)
    split = topi.reshape(y, (2, 3, 8))
    out = te.compute((2, 3, 8), lambda i, j, k: split[i, j, k] * 2.0, name="out")
    given = [normal(2, 1, 40), normal(24, 40)]
    check([a, b, out], given, 2 * (given[0] @ given[1].T).reshape(2, 3, 8))


def test_integers_are_summed_exactly():
    a, b = x(2, 99, dtype="int8", name="a"), x(30, 99, dtype="int8", name="b")
    rng = np.random.default_rng(0)
    given = [rng.integers(-128, 127, shape).astype("int8") for shape in ((2, 99), (30, 99))]
    wide = [array.astype("int64") for array in given]
    out = topi.nn.matmul(a, b, transpose_b=True, out_dtype="int32")
    check([a, b, out], given, wide[0] @ wide[1].T, bound=0)


def test_the_kernel_of_cuda_is_the_same():
    given, w = x(2, 256), x(64, 256, name="w")
    func = kernel([given, w, matmul(False, True, "float32")(given, w)])
    found = [matvec.emit(func, device).body for device in (device_of(ANY), DEVICE)]
    assert tvm_ffi.structural_equal(*found, map_free_vars=True)


def declined(tensors: Sequence[te.Tensor]) -> bool:
    return matvec.emit(kernel(tensors), device_of(ANY)) is None


def test_what_is_another_kernel_is_left_to_other_rules():
    rows = tirx.Var("m", "int64")
    w = x(64, 64, name="w")

    def times(m: Any, weight: te.Tensor = w, turned: bool = True) -> list[te.Tensor]:
        given = x(m, weight.shape[1] if turned else weight.shape[0])
        return [given, weight, matmul(False, turned, "float32")(given, weight)]

    assert not declined(times(8))
    assert declined(times(9))
    assert declined(times(rows))  # open rows
    assert declined(times(1, x(1, 64, name="w")))  # one column
    assert declined(times(1, x(64, 7, name="w")))  # a short sum
    image, window = x(1, 6, 6, 16), x(3, 3, 16, 8, name="w")
    assert declined([image, window, topi.nn.conv2d_nhwc(image, window, 1, 1, 1)])
    assert declined([image, topi.sum(image, -1)])
    assert declined([image, topi.nn.relu(image)])


@pytest.mark.parametrize("target", PRESETS.values(), ids=lambda target: target.name)
def test_weights_are_read_as_vectors_and_sums_wait_at_barriers(target):
    given, w = x(2, 256), x(64, 256, name="w")
    func = kernel([given, w, matmul(False, True, "float32")(given, w)])
    laid = schedule(func, target)
    assert laid.attrs[RULE] == "matvec"
    text = source(laid, target)
    assert "vload4(0, w_ptr" in text
    assert text.count("barrier(CLK_LOCAL_MEM_FENCE)") >= 5
    assert "sub_group" not in text
