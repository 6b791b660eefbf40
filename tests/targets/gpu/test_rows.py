"""Kernels of rows laid out for GPUs: on PoCL against float64, and compiled for CUDA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx, topi

from burnish.passes.lower_operators import arg_reduction, group_norm
from burnish.targets.choose import choose_target
from burnish.targets.cuda import nvrtc, sass
from burnish.targets.cuda.resources import resources
from burnish.targets.cuda.schedule import DEVICE
from burnish.targets.cuda.schedule import schedule as schedule_cuda
from burnish.targets.cuda.source import prepared
from burnish.targets.cuda.target import parse_cuda
from burnish.targets.gpu import rows
from burnish.targets.gpu.launch import Device
from burnish.targets.gpu.teams import choose_team
from burnish.targets.names import with_c_names
from burnish.targets.opencl.limits import fits
from burnish.targets.opencl.schedule import RULE, schedule
from burnish.targets.opencl.target import PRESETS
from cuda_support import require_compiler
from opencl_support import require_device

ANY = choose_target("opencl")
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")


@dataclass(frozen=True)
class Case:
    """A kernel of ``x [rows, length]`` and vectors, and what it computes in float64."""

    make: Callable[..., list[te.Tensor]]
    expected: Callable[..., np.ndarray]


def size(n: Any) -> Any:
    return tirx.const(n, "int64") if isinstance(n, int) else n


def tensor(*shape: Any, name: str = "x", dtype: str = "float32") -> te.Tensor:
    return te.placeholder([size(n) for n in shape], dtype, name=name)


def softmax(m: Any, n: Any, dtype: str = "float32") -> list[te.Tensor]:
    x = tensor(m, n, dtype=dtype)
    return [x, topi.nn.softmax(x)]


def layer_norm(m: Any, n: Any, dtype: str = "float32") -> list[te.Tensor]:
    x, gamma, beta = (
        tensor(*s, name=c, dtype=dtype) for s, c in (((m, n), "x"), ((n,), "g"), ((n,), "b"))
    )
    return [x, gamma, beta, topi.nn.layer_norm(x, gamma, beta, [1], 1e-5)]


def added_norm(m: Any, n: Any) -> list[te.Tensor]:
    """A residual before, an activation after."""
    x, more, gamma, beta = (
        tensor(m, n),
        tensor(m, n, name="r"),
        tensor(n, name="g"),
        tensor(n, name="b"),
    )
    total = topi.add(x, more)
    return [x, more, gamma, beta, topi.nn.relu(topi.nn.layer_norm(total, gamma, beta, [1], 1e-5))]


def rms_norm(m: Any, n: Any) -> list[te.Tensor]:
    x, weight = tensor(m, n), tensor(n, name="w")
    return [x, weight, topi.nn.rms_norm(x, weight, [1], 1e-5)]


def of_groups(m: Any, n: Any) -> list[te.Tensor]:
    """``m`` groups of two channels."""
    x, gamma, beta = tensor(2, 2 * m, n, 3), tensor(2 * m, name="g"), tensor(2 * m, name="b")
    return [x, gamma, beta, group_norm(m, 1e-5, True, True)(x, gamma, beta)]


def folded(fold: Callable[..., te.Tensor]) -> Callable[..., list[te.Tensor]]:
    def make(m: Any, n: Any) -> list[te.Tensor]:
        x = tensor(m, n)
        return [x, fold(x)]

    return make


def shares(x: np.ndarray) -> np.ndarray:
    up = np.exp(x - x.max(-1, keepdims=True))
    return up / up.sum(-1, keepdims=True)


def normal(x: np.ndarray) -> np.ndarray:
    away = x - x.mean(-1, keepdims=True)
    return away / np.sqrt((away**2).mean(-1, keepdims=True) + 1e-5)


def normal_groups(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    scale, shift = gamma[:, None, None], beta[:, None, None]
    return normal(x.reshape(2, len(gamma) // 2, -1)).reshape(x.shape) * scale + shift


CASES = {
    "softmax": Case(softmax, shares),
    "log softmax": Case(folded(topi.nn.log_softmax), lambda x: np.log(shares(x))),
    "layer norm": Case(layer_norm, lambda x, g, b: normal(x) * g + b),
    "added norm": Case(added_norm, lambda x, r, g, b: np.maximum(normal(x + r) * g + b, 0)),
    "rms norm": Case(rms_norm, lambda x, w: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w),
    "group norm": Case(of_groups, normal_groups),
    "sum": Case(folded(lambda x: topi.sum(topi.exp(x), 1)), lambda x: np.exp(x).sum(1)),
    "largest": Case(folded(lambda x: topi.max(x, 1, True)), lambda x: x.max(1, keepdims=True)),
    "its place": Case(
        folded(lambda x: arg_reduction(x, 1, False, False, "int64")), lambda x: x.argmin(1)
    ),
}


def kernel(tensors: list[te.Tensor]) -> tirx.PrimFunc:
    return te.create_prim_func(tensors).with_attr("global_symbol", "kernel")


def check(name: str, m: int, n: int, opened: str = "", device: Device | None = None) -> None:
    """By the rule, on the device: within 1e-5 of the largest, and what a rounding of the operands
    changes (a row of nearly equal elements has little of its own); ``opened`` names open sizes."""
    require_device()
    case = CASES[name]
    sizes = [tirx.Var(c, "int64") if c in opened else v for c, v in (("m", m), ("n", n))]
    func = kernel(case.make(*sizes))
    if device is None:
        laid = schedule(func, ANY)
        assert laid.attrs[RULE] == "rows" or n == 1, "of one element each are left to other rules"
    else:
        laid = rows.emit(with_c_names(func), device)
        if laid is None:
            assert n == 1
            return
    with ANY.tvm():
        built = tvm.tirx.build(tvm.IRModule({"kernel": laid}), ANY.tvm(), pipeline="s_tir")
    rng = np.random.default_rng(m * 1000 + n)
    *shapes, out = [tuple(int(s) for s in t.shape) for t in case.make(m, n)]
    given = [rng.normal(1, 1, shape).astype("float32") for shape in shapes]
    wanted = case.expected(*[x.astype("float64") for x in given])
    rounded = case.expected(*[x * (1 + rng.choice([-6e-8, 6e-8], x.shape)) for x in given])
    at = tvm.opencl(0)
    kind = str(case.make(m, n)[-1].dtype)
    result = tvm.runtime.tensor(np.full(out, 77, kind), at)
    built["kernel"](*[tvm.runtime.tensor(x, at) for x in given], result)
    error = np.abs(result.numpy() - wanted).max()
    assert error <= 1e-5 * max(1.0, np.abs(wanted).max()) + 4 * np.abs(rounded - wanted).max()


@pytest.mark.parametrize(("m", "n"), [(5, 100), (3, 33)])
@pytest.mark.parametrize("name", CASES)
def test_rows(name, m, n):
    check(name, m, n)


@pytest.mark.heavy
@given(
    st.sampled_from(sorted(CASES)),
    st.integers(1, 400),
    st.one_of(st.integers(1, 40), st.integers(2, 3000), st.integers(1, 1200).map(lambda n: 4 * n)),
    st.booleans(),
    st.sampled_from([None, Device(32, 4096), Device(1024, 48 * 1024), Device(256, 32768, warp=8)]),
)
@settings(max_examples=40)
def test_any_rows(name, m, n, open_rows, device):
    check(name, m, n, "m" if open_rows and name != "group norm" else "", device)


@pytest.mark.parametrize("name", ["softmax", "layer norm", "its place"])
def test_rows_of_open_length(name):
    check(name, 3, 1001, "mn")


@pytest.mark.parametrize(("name", "n"), [("softmax", 1000), ("sum", 512)])
def test_one_row(name, n):
    check(name, 1, n)


@pytest.mark.parametrize("target", PRESETS.values(), ids=lambda target: target.name)
def test_every_device_has_room(target):
    for n in (7, 512, 50_000):
        found = schedule(kernel(softmax(300, n)), target)
        assert found.attrs[RULE] == "rows"
        assert fits(found, target)


def test_a_team_is_as_large_as_its_row():
    assert choose_team(10_000, 768, DEVICE).lanes == 128
    assert choose_team(10_000, 768, DEVICE).rows == 2
    assert choose_team(10, 768, DEVICE).lanes == 256
    assert choose_team(10_000, 5, DEVICE).lanes == 1
    assert choose_team(None, None, DEVICE).lanes == 256


def compiled(func: tirx.PrimFunc, arch: str) -> bytes:
    """The kernel as CUDA lays it out, as machine code."""
    target = parse_cuda(f"cuda:{arch}")
    laid = schedule_cuda(func, target)
    assert laid.attrs[RULE] == "rows"
    with target.tvm():
        built = tvm.tirx.build(tvm.IRModule({"kernel": laid}), target.tvm(), pipeline="s_tir")
    source = prepared(built.imports[0].inspect_source("cuda"))
    return nvrtc.compile_source(source, arch).cubin


@pytest.mark.parametrize(
    "arch",
    [pytest.param(a, marks=() if a == "sm_80" else pytest.mark.heavy) for a in ARCHITECTURES],
)
@pytest.mark.parametrize(
    ("make", "reads"), [(softmax, 1), (layer_norm, 3)], ids=["softmax", "layer norm"]
)
def test_cuda_reads_each_element_once(arch, make, reads):
    """4,096 rows of 1,024: 128 threads a row have 8 elements each, two loads of 16 bytes of each
    operand, two stores; two sums by way of ``SHFL``; nothing spilled."""
    require_compiler()
    cubin = compiled(kernel(make(4096, 1024)), arch)
    (machine,) = sass.kernels(cubin).values()
    assert machine.count("LDG") == 2 * reads
    assert machine.count("STG") == 2
    assert machine.count("SHFL") == 2 * 5
    (found,) = resources(cubin)
    assert found.local == 0


@pytest.mark.parametrize(("dtype", "n"), [("float16", 771), ("bfloat16", 768)])
def test_cuda_compiles_rows_of_two_bytes(dtype, n):
    require_compiler()
    (found,) = resources(compiled(kernel(softmax(30, n, dtype)), "sm_80"))
    assert found.local == 0
