"""Batches of small products, laid out for any device and run on OpenCL: against float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import opencl_kernels
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from opencl_kernels import ANY, kernel, normal, source, x
from tvm import te, tirx, topi

from burnish.passes.lower_contractions import attention_mix, attention_scores, matmul
from burnish.targets.cuda import nvrtc
from burnish.targets.cuda.resources import resources
from burnish.targets.cuda.schedule import DEVICE
from burnish.targets.cuda.schedule import schedule as schedule_cuda
from burnish.targets.cuda.source import prepared
from burnish.targets.cuda.target import parse_cuda
from burnish.targets.gpu import small_products
from burnish.targets.opencl.schedule import device_of, schedule
from burnish.targets.opencl.target import PRESETS
from burnish.targets.rules import RULE
from cuda_support import require_compiler

check = partial(opencl_kernels.check, rule="small products")


def batched(b: Any, m: int, n: int, k: int, turned: bool, dtype: str) -> list[te.Tensor]:
    left = x(b, m, k, dtype=dtype, name="l")
    right = x(*((b, n, k) if turned else (b, k, n)), dtype=dtype, name="r")
    return [left, right, topi.nn.relu(matmul(False, turned, "float32")(left, right))]


def check_batch(b: int, m: int, n: int, k: int, turned: bool, dtype: str = "float32") -> None:
    tensors = batched(b, m, n, k, turned, dtype)
    given = [normal(*map(int, tensor.shape), dtype=dtype) for tensor in tensors[:2]]
    left, right = (array.astype("float64") for array in given)
    want = np.maximum(left @ (right.swapaxes(1, 2) if turned else right), 0)
    check(tensors, given, want)


SIZES = {
    "b": st.integers(2, 5),
    "m": st.integers(9, 64),
    "n": st.integers(9, 64),
    "k": st.integers(4, 64),
    "turned": st.booleans(),
    "dtype": st.sampled_from(["float32", "bfloat16"]),
}


@settings(max_examples=5)
@given(**SIZES)
def test_any_batch(b, m, n, k, turned, dtype):
    check_batch(b, m, n, k, turned, dtype)


@pytest.mark.heavy
@settings(max_examples=40)  # OpenCL's driver builds a program an example
@given(**SIZES)
def test_many_batches(b, m, n, k, turned, dtype):
    check_batch(b, m, n, k, turned, dtype)


def test_heads_of_an_open_batch():
    b = tirx.Var("b", "int64")
    q, k = x(b, 49, 3, 32, name="q"), x(b, 49, 3, 32, name="k")
    shares = x(b, 3, 49, 49, name="s")
    for size in (0, 2):
        queries, keys = normal(size, 49, 3, 32), normal(size, 49, 3, 32) / 2
        wide = keys.astype("float64")
        want = 0.5 * np.einsum("bmhd,bnhd->bhmn", queries, wide)
        check([q, k, attention_scores(0.5, 0)(q, k)], [queries, keys], want)
        given = normal(size, 3, 49, 49)
        want = np.einsum("bhmn,bnhe->bmhe", given, wide)
        check([shares, k, attention_mix("float32")(shares, k)], [given, keys], want)


def test_what_is_no_batch_of_small_products_is_left_alone():
    for sizes in ((1, 32, 32, 32), (3, 65, 32, 32), (3, 32, 32, 3), (3, 64, 64, 999)):
        func = kernel(batched(*sizes, True, "float32"))
        assert small_products.emit(func, device_of(ANY)) is None


@pytest.mark.parametrize("target", PRESETS.values(), ids=lambda target: target.name)
def test_an_operand_is_read_once_and_waited_for_once(target):
    laid = schedule(kernel(batched(3, 40, 48, 32, True, "float32")), target)
    assert laid.attrs[RULE] == "small products"
    text = source(laid, target)
    assert text.count("barrier(CLK_LOCAL_MEM_FENCE)") == 1
    assert ("vload4(0, right_ptr" in text) == (target.vector == 4)


@pytest.mark.parametrize("arch", ["sm_75", pytest.param("sm_90", marks=pytest.mark.heavy)])
def test_machine_code_for_cuda_spills_nothing(arch):
    require_compiler()
    target = parse_cuda(f"cuda:{arch}")
    laid = schedule_cuda(kernel(batched(12, 49, 49, 32, True, "float32")), target)
    assert laid.attrs[RULE] == "small products"
    with target.tvm():
        mod = tvm.IRModule({"kernel": laid})
        made = tvm.tirx.build(mod, target=target.tvm(), pipeline="s_tir")
    code = nvrtc.compile_source(prepared(made.imports[0].inspect_source("cuda")), arch)
    (takes,) = resources(code.cubin)
    assert takes.local == 0
    assert takes.shared <= DEVICE.shared + 1024  # which sm_90 takes itself
