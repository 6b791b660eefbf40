"""Products whose sums are cut into parts: which are, that they are right, what they compile to."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import te, tirx, topi

from burnish.targets.cuda import nvrtc, sass, split, tensor_core
from burnish.targets.cuda.resources import resources
from burnish.targets.cuda.schedule import RULE, schedule
from burnish.targets.cuda.source import prepared
from burnish.targets.cuda.target import CudaTarget, parse_cuda
from burnish.targets.device_lowering import PIPELINE
from burnish.targets.opencl.target import OpenclTarget
from cuda_products import convolution, product
from cuda_support import require_compiler
from opencl_support import require_device
from sequential import sequential

TARGET = parse_cuda("cuda:sm_80")
DEVICE = OpenclTarget(name="as CUDA", work_group=1024, local_memory=48 * 1024)
DESCRIBED = split.rule([lambda func, target: tensor_core.emit(func, target, described=True)])


def run_on_cpu(func: tirx.PrimFunc, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The result and the operands of both kernels with descriptions for intrinsics."""
    laid = DESCRIBED(func, TARGET)
    assert laid is not None
    one = sequential(laid).with_attr("global_symbol", "product")
    ready = tvm.compile(tvm.IRModule({"product": one}), target="llvm")
    rng = np.random.default_rng(seed)
    given = []
    for param in func.params:
        dtype = {"bfloat16": ml_dtypes.bfloat16}.get(str(param.dtype), str(param.dtype))
        given.append(rng.integers(-4, 5, [int(n) for n in param.shape]).astype(dtype))
    given[-1] = np.zeros_like(given[-1])
    tensors = [tvm.runtime.tensor(x) for x in given]
    ready["product"](*tensors)
    return tensors[-1].numpy(), [x.astype(np.float64) for x in given[:-1]]


def heavy(*values):
    return pytest.param(*values, marks=pytest.mark.heavy)


@pytest.mark.parametrize(
    ("m", "n", "k", "turned", "dtype"),
    [
        (19, 37, 2048, True, "float16"),
        heavy(33, 70, 3072, False, "bfloat16"),
        heavy(12, 130, 4096, True, "int8"),
        heavy(49, 33, 4096, False, "float16"),
    ],
)
def test_parts_described_on_the_cpu_sum_to_the_product(m, n, k, turned, dtype):
    got, (a, b, bias) = run_on_cpu(product(m, n, k, turned=turned, dtype=dtype), m)
    np.testing.assert_array_equal(got, a @ (b.T if turned else b) + bias)


@pytest.mark.heavy
def test_a_convolution_is_cut_along_its_channels():
    got, (a, w) = run_on_cpu(convolution(384, 20, 5, 3, 1, "float16"), 0)
    wide = np.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(1, 2))
    np.testing.assert_array_equal(got, np.einsum("nyxcij,ijco->nyxo", views, w))


def plain(m: int, n: int, k: int) -> tirx.PrimFunc:
    """float32, with what follows reading the product twice: ``y * sigmoid(y) + b``."""
    a = te.placeholder((m, k), "float32", name="a")
    b = te.placeholder((n, k), "float32", name="b")
    bias = te.placeholder((n,), "float32", name="bias")
    y = topi.nn.matmul(a, b, transpose_b=True)
    out = topi.add(topi.multiply(y, topi.sigmoid(y)), bias)
    return te.create_prim_func([a, b, bias, out]).with_attr("global_symbol", "kernel")


@pytest.mark.parametrize(
    ("m", "n", "k"), [(33, 70, 1024), heavy(9, 200, 2048), heavy(100, 65, 1536)]
)
def test_parts_without_tensor_cores_sum_to_the_product_on_opencl(m, n, k):
    require_device()
    laid = schedule(plain(m, n, k), TARGET)
    assert laid.attrs[RULE] == "split"
    with DEVICE.tvm():
        mod = tvm.IRModule({"kernel": laid})
        built = tvm.tirx.build(mod, target=DEVICE.tvm(), pipeline=PIPELINE)
    rng = np.random.default_rng(k)
    a, b, bias = (rng.normal(size=s).astype("float32") for s in ((m, k), (n, k), (n,)))
    device = tvm.opencl(0)
    given = [tvm.runtime.tensor(x, device) for x in (a, b, bias)]
    found = []
    for _ in range(2):
        out = tvm.runtime.tensor(np.full((m, n), np.nan, "float32"), device)
        built["kernel"](*given, out)
        found.append(out.numpy())
    y = a.astype("float64") @ b.T.astype("float64")
    np.testing.assert_allclose(found[0], y / (1 + np.exp(-y)) + bias, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(*found)


@pytest.mark.heavy
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_both_kernels_compile_with_no_atomics_and_no_spills(arch):
    require_compiler()
    target = parse_cuda(f"cuda:{arch}")
    func = schedule(product(512, 512, 8192), target).with_attr("global_symbol", "product")
    assert func.attrs[RULE] == "split"
    with target.tvm(), tvm.transform.PassContext(config={"tirx.use_async_copy": True}):
        mod = tvm.IRModule({"product": func})
        built = tirx.build(mod, target=target.tvm(), pipeline=PIPELINE)
    code = nvrtc.compile_source(prepared(built.imports[0].inspect_source("cuda")), arch)
    kernels = sass.kernels(code.cubin)
    assert set(kernels) == {"product_kernel", "product_kernel_1"}
    opcode = "HGMMA" if target.warp_groups else "HMMA"
    assert kernels["product_kernel"].count(opcode) > 0
    for kernel in kernels.values():
        assert kernel.count("ATOM", "ATOMG", "RED", "REDG", *sass.SPILLS) == 0
    assert all(found.local == 0 for found in resources(code.cubin))


@given(
    rows=st.integers(9, 3000),
    columns=st.integers(9, 3000),
    steps=st.integers(1, 400),
    arch=st.sampled_from(["sm_75", "sm_80", "sm_90"]),
    dtype=st.sampled_from(["float16", "float32", "int8"]),
)
def test_parts_are_equal_long_and_few(rows, columns, steps, arch, dtype):
    target = parse_cuda(f"cuda:{arch}")
    element = np.dtype(dtype).itemsize
    depth = steps * 128 // element
    parts = split.parts_of((1, rows, columns, depth), depth, dtype, target, element)
    assert 1 <= parts <= 16
    if parts > 1:
        assert steps % parts == 0
        assert steps // parts >= 16
        assert rows * columns < 100 * 128 * 128


@pytest.mark.parametrize(
    ("func", "target"),
    [
        (product(49, 128, 4096), dataclasses.replace(TARGET, graphs=True)),
        (product(2048, 2048, 4096), TARGET),
        (product(49, 128, 512), TARGET),
        (product(49, 128, 4099), TARGET),
    ],
    ids=["graphs", "many tiles", "short sums", "sums of odd length"],
)
def test_other_products_are_not_cut(func: tirx.PrimFunc, target: CudaTarget):
    assert schedule(func, target).attrs[RULE] != "split"
