"""CUDA's rules without tensor cores, built for OpenCL and run there: against float64.

The layout is CUDA's, with its work groups of up to 1,024; only code generation is OpenCL's, which
knows no warps: sums over threads go by way of local memory. Our own rules are run by tests of
theirs (``tests/targets/gpu``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx, topi

from burnish.passes.lower_contractions import attention_mix, attention_scores, matmul
from burnish.targets.cuda.schedule import RULE, schedule
from burnish.targets.cuda.target import parse_cuda
from burnish.targets.device_lowering import PIPELINE
from burnish.targets.opencl.target import OpenclTarget
from opencl_support import require_device

TARGET = parse_cuda("cuda:sm_80")
DEVICE = OpenclTarget(name="as CUDA", work_group=1024, local_memory=48 * 1024)


@dataclass(frozen=True)
class Case:
    """A kernel of given sizes, what it computes in float64, and the rules that may lay it out."""

    make: Callable[..., list[te.Tensor]]
    expected: Callable[..., np.ndarray]
    rules: frozenset[str]


def _x(*shape: int, name: str = "x") -> te.Tensor:
    return te.placeholder(shape, "float32", name=name)


def _product(m: int, n: int, k: int) -> list[te.Tensor]:
    a, b = _x(m, k, name="a"), _x(n, k, name="b")
    return [a, b, topi.nn.relu(matmul(False, True, "float32")(a, b))]


def _batch(m: int, n: int, k: int) -> list[te.Tensor]:
    a, b = _x(3, m, k, name="a"), _x(3, k, n, name="b")
    return [a, b, matmul(False, False, "float32")(a, b)]


def _vector(m: int, n: int, k: int) -> list[te.Tensor]:
    a, b = _x(1, k, name="a"), _x(n, k, name="b")
    return [a, b, matmul(False, True, "float32")(a, b)]


def _scores(m: int, n: int, k: int) -> list[te.Tensor]:
    q, keys = _x(1, m, 2, k, name="q"), _x(1, n, 2, k, name="k")
    return [q, keys, attention_scores(0.5, 0)(q, keys)]


def _mix(m: int, n: int, k: int) -> list[te.Tensor]:
    shares, v = _x(1, 2, m, k, name="s"), _x(1, k, 2, n, name="v")
    return [shares, v, attention_mix("float32")(shares, v)]


def _convolved(m: int, n: int, _k: int) -> list[te.Tensor]:
    x, w = _x(1, 6, 5, m), _x(3, 3, m, n, name="w")
    return [x, w, topi.nn.conv2d_nhwc(x, w, 1, 1, 1)]


def _convolution(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), axis=(1, 2))
    return np.einsum("bhwcyx,yxco->bhwo", windows, w)


CASES = {
    "product": Case(_product, lambda a, b: np.maximum(a @ b.T, 0), frozenset({"matmul"})),
    "batch": Case(_batch, lambda a, b: a @ b, frozenset({"matmul"})),
    "vector": Case(_vector, lambda a, b: a @ b.T, frozenset({"matvec"})),
    "scores": Case(
        _scores, lambda q, k: 0.5 * np.einsum("bmhd,bnhd->bhmn", q, k), frozenset({"matmul"})
    ),
    "mix": Case(_mix, lambda s, v: np.einsum("bhmn,bnhe->bmhe", s, v), frozenset({"matmul"})),
    "convolution": Case(_convolved, _convolution, frozenset({"matmul"})),
    "sum of columns": Case(
        lambda m, n, _k: [x := _x(m, n), topi.sum(x, 0)],
        lambda x: x.sum(0),
        frozenset({"reduction"}),
    ),
    "transpose": Case(
        lambda m, n, k: [x := _x(m, n, k), topi.transpose(topi.tanh(x), (2, 0, 1))],
        lambda x: np.tanh(x).transpose(2, 0, 1),
        frozenset({"fallback"}),
    ),
}


def check(name: str, m: int, n: int, k: int) -> None:
    """Build the case for OpenCL as CUDA lays it out, and run it."""
    case = CASES[name]
    tensors = case.make(m, n, k)
    func = te.create_prim_func(tensors).with_attr("global_symbol", "kernel")
    laid: tirx.PrimFunc = schedule(func, TARGET)
    with DEVICE.tvm():
        built = tvm.tirx.build(
            tvm.IRModule({"kernel": laid}), target=DEVICE.tvm(), pipeline=PIPELINE
        )
    rng = np.random.default_rng(0)
    shapes = [tuple(int(n) for n in tensor.shape) for tensor in tensors]
    given = [rng.normal(size=shape).astype("float32") for shape in shapes[:-1]]
    device = tvm.opencl(0)
    out = tvm.runtime.tensor(np.full(shapes[-1], np.nan, "float32"), device)
    built["kernel"](*[tvm.runtime.tensor(x, device) for x in given], out)
    expected = case.expected(*[x.astype("float64") for x in given])
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-5 * max(1, k) ** 0.5)


QUICK = ("product", "vector", "sum of columns", "transpose")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.heavy) for n in CASES]
)
def test_an_odd_shape(name):
    require_device()
    case = CASES[name]
    func = te.create_prim_func(case.make(33, 70, 21))
    assert schedule(func, TARGET).attrs[RULE] in case.rules
    check(name, 33, 70, 21)


@pytest.mark.heavy
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=3)
@given(m=st.integers(1, 70), n=st.integers(1, 200), k=st.integers(1, 70))
def test_any_shape(name, m, n, k):
    require_device()
    check(name, m, n, k)
