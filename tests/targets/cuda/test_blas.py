"""Products by cuBLASLt, whose place a stand-in takes: it computes as NVIDIA's manual says."""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np
import pytest
import tvm
import tvm_ffi
from hypothesis import given
from hypothesis import strategies as st
from nvidia_support import build_function, build_stub

from burnish.targets.cuda.blas import ACTIVATIONS, DTYPES, Product, is_key

TOLERANCE = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cublas")
    path = build_stub(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BURNISH_CUBLASLT", str(path))
        patch.setenv("BURNISH_CUDA_DRIVER", str(path))
        module = tvm_ffi.load_module(str(build_function(Product, folder)))
        counts = ctypes.CDLL(str(path))
        counts.stub_launches.restype = counts.stub_heuristics.restype = ctypes.c_int64
        yield module[Product.symbol], counts


sizes = st.integers(1, 9)
outers = st.sampled_from(
    [((), ()), ((3,), ()), ((), (2,)), ((2,), (2,)), ((2, 3), ()), ((2, 1), (2, 1))]
)
products = st.builds(
    lambda outer, **fields: Product(a_outer=outer[0], b_outer=outer[1], **fields),
    outers,
    dtype=st.sampled_from(DTYPES),
    m=sizes,
    n=sizes,
    k=sizes,
    a_turned=st.booleans(),
    b_turned=st.booleans(),
    bias=st.booleans(),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
)


def operands(product: Product, rng: np.random.Generator):
    """Operands as they are multiplied, and the bias."""
    dtype = ml_dtypes.bfloat16 if product.dtype == "bfloat16" else np.dtype(product.dtype)
    a = rng.standard_normal((*product.a_outer, product.m, product.k)).astype(dtype)
    b = rng.standard_normal((*product.b_outer, product.k, product.n)).astype(dtype)
    return a, b, rng.standard_normal(product.n).astype(dtype)


def expected(product: Product, a, b, bias) -> np.ndarray:
    value = a.astype("float64") @ b.astype("float64")
    if product.bias:
        value = value + bias.astype("float64")
    if product.activation == "relu":
        value = np.maximum(value, 0)
    if product.activation == "gelu_tanh":
        inner = np.sqrt(2 / np.pi) * (value + 0.044715 * value**3)
        value = 0.5 * value * (1 + np.tanh(inner))
    return value


def stored(value: np.ndarray, turned: bool):
    return tvm.runtime.tensor(np.ascontiguousarray(np.swapaxes(value, -1, -2)) if turned else value)


@given(products, st.integers(0, 2**32 - 1))
def test_any_product(stub, product, seed):
    a, b, bias = operands(product, np.random.default_rng(seed))
    wanted = expected(product, a, b, bias)
    out = tvm.runtime.empty(wanted.shape, product.dtype)
    tensors = [stored(a, product.a_turned), stored(b, product.b_turned)]
    if product.bias:
        tensors.append(tvm.runtime.tensor(bias))
    stub[0](*tensors, *product.numbers, out)
    found = out.numpy().astype("float64")
    scale = max(np.abs(wanted).max(), 1e-3)
    assert np.abs(found - wanted).max() <= TOLERANCE[product.dtype] * max(scale, 1)


@given(products)
def test_a_key_says_the_product(product):
    assert is_key(product.key)
    assert product.why_not() == ""


def test_a_product_met_again_is_not_planned_again(stub):
    function, counts = stub
    a, b = (tvm.runtime.tensor(np.ones((6, 6), "float32")) for _ in range(2))
    out = tvm.runtime.empty((6, 6), "float32")
    function(a, b, 0, out)
    planned, ran = counts.stub_heuristics(), counts.stub_launches()
    for _ in range(5):
        function(a, b, 0, out)
    assert counts.stub_heuristics() == planned
    assert counts.stub_launches() == ran + 5


def test_nothing_runs_for_a_result_without_elements(stub):
    function, counts = stub
    ran = counts.stub_launches()
    a = tvm.runtime.tensor(np.ones((0, 4), "float32"))
    function(a, tvm.runtime.tensor(np.ones((4, 3), "float32")), 0, tvm.runtime.empty((0, 3)))
    assert counts.stub_launches() == ran


@pytest.mark.parametrize(
    ("shapes", "dtypes", "flags", "kind", "message"),
    [
        (((2, 3), (4, 5), (2, 5)), "fff", 0, ValueError, "shapes do not fit"),
        (((2, 3), (3, 5), (2, 4)), "fff", 0, ValueError, "shapes do not fit"),
        (((3, 2, 3), (2, 3, 5), (3, 2, 5)), "fff", 0, ValueError, "shapes do not fit"),
        (((2, 3), (3, 5), (2, 5)), "ffe", 0, TypeError, "tensor 2 is of another type"),
        (((2, 3), (3, 5), (2, 5)), "ddd", 0, TypeError, "unsupported type"),
        (((3,), (3, 5), (1, 5)), "fff", 0, TypeError, "tensor 0 is not a packed matrix"),
        (((2, 3), (3, 5), (2, 5)), "fff", 4, TypeError, "4 arguments do not fit the flags 4"),
    ],
)
def test_what_it_refuses(stub, shapes, dtypes, flags, kind, message):
    a, b, out = (
        tvm.runtime.tensor(np.zeros(shape, dtype))
        for shape, dtype in zip(shapes, dtypes, strict=True)
    )
    with pytest.raises(kind, match=message):
        stub[0](a, b, flags, out)


def test_a_product_without_an_algorithm(stub):
    function, counts = stub
    counts.stub_fail(ctypes.c_int64(1))
    try:
        with pytest.raises(RuntimeError, match="no algorithm for 7 x 11 x 13"):
            function(
                tvm.runtime.tensor(np.ones((7, 13), "float32")),
                tvm.runtime.tensor(np.ones((13, 11), "float32")),
                0,
                tvm.runtime.empty((7, 11), "float32"),
            )
    finally:
        counts.stub_fail(ctypes.c_int64(0))


def test_without_the_library_it_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("BURNISH_CUBLASLT", str(tmp_path / "none.so"))
    function = tvm_ffi.load_module(str(build_function(Product, tmp_path)))[Product.symbol]
    one = tvm.runtime.tensor(np.ones((1, 1), "float32"))
    with pytest.raises(RuntimeError, match=r"calls cuBLASLt.*none.so.*pip install nvidia-cublas"):
        function(one, one, 0, tvm.runtime.empty((1, 1), "float32"))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"dtype": "float64"}, "it takes float16, bfloat16, float32, not float64"),
        ({"a_outer": (2,), "b_outer": (3,)}, "repeats a whole operand or none of it"),
        ({"k": 0}, "an axis has no elements"),
    ],
)
def test_products_that_are_not_for_it(fields, why):
    assert why in Product(**{"dtype": "float32", "m": 2, "n": 3, "k": 4, **fields}).why_not()
