"""Contractions on dot instructions: bfloat16 in, float32 out."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from example_counts import COMPILED
from hypothesis import given
from hypothesis import strategies as st
from kernel_support import Built, Case, build, compare, lowered, module, normal, reference
from tvm import relax

from burnish.compiler.config import CompileConfig
from burnish.targets.cpu import dots
from burnish.targets.cpu.lowering import PIPELINE
from burnish.targets.target import CpuTarget, host, parse_target

op = relax.op
GENERIC = parse_target("llvm -mcpu=x86-64-v3 -num-cores=2")
ZEN4 = parse_target("llvm -mcpu=znver4 -num-cores=2")
sizes = st.sampled_from([1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33, 48, 64, 67, 97, 130])


def rounded(array: np.ndarray) -> np.ndarray:
    return array.astype(ml_dtypes.bfloat16).astype(array.dtype)


def gemm(rows: int, depth: int, columns: int, seed: int = 0) -> Case:
    return Case(
        lambda x, w, b: op.nn.relu(op.add(op.matmul(x, op.permute_dims(w)), b)),
        lambda x, w, b: torch.relu(x @ w.T + b),
        {"x": normal(seed, rows, depth)},
        {"w": normal(seed + 1, columns, depth), "b": normal(seed + 2, columns)},
    )


def convolution(
    depth: int, out: int, kernel: int, groups: int = 1, stride: int = 1, pad: int = 1, seed: int = 0
) -> Case:
    return Case(
        lambda x, w: op.nn.conv2d(x, w, padding=pad, groups=groups, strides=stride),
        lambda x, w: F.conv2d(x, w, padding=pad, groups=groups, stride=stride),
        {"x": normal(seed, 2, depth, 9, 8)},
        {"w": normal(seed + 1, out, depth // groups, kernel, kernel)},
    )


def check(case: Case, target: CpuTarget | None = None) -> Built:
    """Against float64 on the rounded factors: weights of two or more axes, and activations."""
    built = build(case, target, "bf16")
    weights = {k: rounded(w) if w.ndim > 1 else w for k, w in case.weights.items()}
    inputs = {k: rounded(x) for k, x in case.inputs.items()}
    want = reference(replace(case, weights=weights, inputs=inputs))
    compare(built(*case.inputs.values()), want, case.tolerance)
    return built


def uses_dots(built: Built) -> bool:
    return any("burnish_dot_bf16" in str(kernel) for kernel in built.kernels)


def assembly(case: Case, target: CpuTarget) -> str:
    kernels = Built(lowered(module(case), target, CompileConfig(precision="bf16")), target).kernels
    named = {
        f"k{i}": kernel.with_attr("global_symbol", f"k{i}") for i, kernel in enumerate(kernels)
    }
    mod = tvm.IRModule(named)
    return tvm.tirx.build(mod, target.tvm(), pipeline=PIPELINE).inspect_source("asm")


@COMPILED
@given(sizes, sizes, sizes, st.integers(0, 99))
def test_a_gemm_of_any_size_sums_the_products_of_the_rounded_factors(rows, depth, columns, seed):
    check(gemm(rows, depth, columns, seed))


CONVOLUTIONS = [(3, 20, 3, 1, 1), (4, 16, 2, 2, 0), (1, 5, 1, 1, 0), (33, 48, 3, 2, 2)]


@pytest.mark.parametrize(("depth", "out", "kernel", "stride", "pad"), CONVOLUTIONS)
def test_a_convolution_does(depth, out, kernel, stride, pad):
    assert uses_dots(check(convolution(depth, out, kernel, stride=stride, pad=pad))) == dots_here()


@pytest.mark.heavy
@COMPILED
@given(
    st.sampled_from([1, 3, 4, 7, 16, 33]),
    st.sampled_from([1, 5, 16, 48]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 2),
)
def test_a_convolution_of_any_window_does(depth, out, kernel, stride, pad):
    check(convolution(depth, out, kernel, stride=stride, pad=pad))


def test_a_grouped_convolution_does():
    assert uses_dots(check(convolution(12, 64, 3, groups=4))) == dots_here()


def dots_here() -> bool:
    return bool(dots.instructions_of(host()))


@pytest.mark.parametrize("case", [gemm(13, 33, 40), convolution(3, 20, 3)], ids=["gemm", "conv"])
def test_a_target_without_the_instruction_computes_the_same(case):
    built = check(case, GENERIC)
    assert not uses_dots(built)


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 23])
def test_symbolic_rows_do(rows):
    case = gemm(rows, 35, 50)
    check(replace(case, shapes={"x": ["rows", 35]}))


def test_the_inner_loop_is_one_instruction_for_each_accumulator():
    text = assembly(gemm(128, 256, 256), ZEN4)
    assert "vdpbf16ps" in text
    assert "burnish_dot_bf16" not in text
    assert "vfmadd231ps" not in text


def test_activations_are_rounded_once_in_the_store_of_what_makes_them():
    case = Case(
        lambda x, a, b: op.matmul(op.nn.relu(op.matmul(x, a)), b),
        lambda x, a, b: torch.relu(x @ a) @ b,
        {"x": normal(0, 9, 32)},
        {"a": normal(1, 32, 48), "b": normal(2, 48, 16)},
    )
    built = build(case, precision="bf16")
    outputs = sorted(str(list(kernel.params)[-1].dtype) for kernel in built.kernels)
    assert outputs == ["bfloat16", "bfloat16", "float32"]


def test_what_follows_an_odd_row_is_not_read():
    """A NaN or infinity in the next row would show, were it multiplied by the filling's zero."""
    x = normal(0, 4, 7)
    x[1::2, 0] = np.nan
    case = Case(lambda x, w: op.matmul(x, w), lambda x, w: x @ w, {"x": x}, {"w": normal(1, 7, 20)})
    (out,) = build(case, precision="bf16")(x)
    assert np.isfinite(out[::2]).all()
    assert np.isnan(out[1::2]).all()


def test_infinities_and_nan_pass_through():
    x = normal(0, 3, 8)
    x[0, 3], x[1, 5] = np.inf, np.nan
    w = np.abs(normal(1, 20, 8)) + 0.1
    case = Case(
        lambda x, w: op.matmul(x, op.permute_dims(w)),
        lambda x, w: x @ w.T,
        {"x": x},
        {"w": w.astype("float32")},
    )
    check(case)


def test_a_target_says_which_instructions_it_has():
    assert [d.function for d in dots.instructions_of(ZEN4)] == ["burnish_dot_bf16"]
    assert dots.instructions_of(GENERIC) == ()
    narrow = parse_target("llvm -mcpu=skylake-avx512 -num-cores=2")
    assert dots.instructions_of(narrow) == ()
    (known,) = dots.instructions_of(ZEN4)
    assert (known.bits, known.group) == (16, 2)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_long_sum_with_what_is_added_in_its_store(precision):
    case = Case(
        lambda x, y, w, b: op.add(op.add(op.matmul(x, op.permute_dims(w)), b), y),
        lambda x, y, w, b: x @ w.T + b + y,
        {"x": rounded(normal(0, 128, 1600)), "y": normal(1, 128, 64)},
        {"w": rounded(normal(2, 64, 1600)), "b": normal(3, 64)},
    )
    compare(build(case, precision=precision)(*case.inputs.values()), reference(case), 2e-3)
