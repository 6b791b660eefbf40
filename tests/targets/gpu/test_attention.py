"""Attention in one kernel without matrix units: on PoCL against float64, as each target has it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tvm
from attention_support import Case, cases
from hypothesis import given, settings
from tvm import tirx

from burnish.targets.attention_form import sizes_of
from burnish.targets.cuda import attention as cuda_attention
from burnish.targets.cuda import schedule as cuda
from burnish.targets.cuda.target import parse_cuda
from burnish.targets.gpu.attention import Limits, choose_block
from burnish.targets.opencl import attention as opencl_attention
from burnish.targets.opencl import schedule as opencl
from burnish.targets.opencl.limits import fits
from burnish.targets.opencl.target import PRESETS, OpenclTarget, parse_opencl
from opencl_support import require_device

ANY = parse_opencl("opencl")
CUDA = parse_cuda("cuda:sm_80")
AS_CUDA = OpenclTarget(name="as CUDA", work_group=1024, local_memory=48 * 1024)


def built(func: tirx.PrimFunc, target: OpenclTarget):
    with target.tvm():
        return tvm.tirx.build(tvm.IRModule({"kernel": func}), target=target.tvm(), pipeline="s_tir")


def run(module, case: Case, inputs: list[np.ndarray]) -> np.ndarray:
    device = tvm.opencl(0)
    shape = (case.b, case.m, case.h, case.e)
    out = tvm.runtime.tensor(np.full(shape, np.nan, "float32"), device)
    module["kernel"](*[tvm.runtime.tensor(x, device) for x in inputs], out)
    return out.numpy()


def check(case: Case, laid: tirx.PrimFunc, target: OpenclTarget = ANY) -> None:
    require_device()
    inputs = case.inputs()
    got = run(built(laid, target), case, inputs)
    np.testing.assert_allclose(got, case.expected(inputs), rtol=1e-5, atol=2e-5)


def laid_out(case: Case, target=ANY) -> tirx.PrimFunc:
    rules = opencl if isinstance(target, OpenclTarget) else cuda
    found = rules.schedule(case.func(), target)
    assert found.attrs[rules.RULE] == "attention"
    return found


@pytest.mark.parametrize(
    "case",
    [
        Case(b=2, m=33, n=70, h=6, d=20, e=24, causal=2, bias=(True, False, True)),
        Case(m=1, n=333, h=4, d=64, e=64, bias=(False, False, False)),
    ],
    ids=["many rows", "few rows"],
)
def test_scores_stay_in_local_memory(case):
    laid = laid_out(case)
    assert fits(laid, ANY)
    check(case, laid)


@pytest.mark.heavy
@settings(max_examples=8)
@given(case=cases())
def test_any_form_on_any_device(case):
    check(case, laid_out(case))


@pytest.mark.heavy
@settings(max_examples=6)
@given(case=cases(depths=(8, 40, 64, 128)))
def test_any_form_as_cuda_has_it(case):
    check(case, laid_out(case, CUDA), AS_CUDA)


@pytest.mark.parametrize("causal", [1, pytest.param(0, marks=pytest.mark.heavy)])
def test_open_sizes(causal):
    require_device()
    case = Case(h=4, kv=2, d=32, e=24, causal=causal, open_sizes=True, bias=(True, False, True))
    module = built(laid_out(case), ANY)
    for b, m, n in ((2, 7, 9), (1, 1, 1), (1, 1, 200), (3, 33, 64), (1, 65, 130), (0, 5, 6)):
        one = dataclasses.replace(case, b=b, m=m, n=n)
        inputs = one.inputs()
        got = run(module, one, inputs)
        np.testing.assert_allclose(got, one.expected(inputs), rtol=1e-5, atol=1e-5)


def test_rows_that_see_no_key_are_zeros_and_a_score_that_is_no_number_spoils_its_own():
    require_device()
    case = Case(m=9, n=100, bias=(False, False, True))
    inputs = case.inputs()
    inputs[3][..., :40] = -np.inf
    inputs[3][..., 3, :] = -np.inf
    inputs[3][..., 4, :] = np.finfo("float32").min
    inputs[0][0, 5, 1, 2] = np.nan
    got = run(built(laid_out(case), ANY), case, inputs)
    assert np.isnan(got[0, 5, 1]).all()
    assert np.isnan(got).sum() == case.e
    np.testing.assert_array_equal(got[0, 3], 0)
    np.testing.assert_allclose(got[0, 4], inputs[2][0].mean(0), rtol=1e-4, atol=1e-5)
    inputs[0][0, 5, 1, 2] = 0
    seen = [0, 1, 2, 6, 7, 8]
    want = case.expected(inputs)
    np.testing.assert_allclose(got[:, seen], want[:, seen], rtol=1e-5, atol=1e-5)


def test_a_larger_score_in_a_later_block_rescales_what_came_before():
    require_device()
    case = Case(m=20, n=300, h=1, kv=1)
    inputs = case.inputs()
    inputs[1][:, 200:] *= 30
    inputs[2][:, :200] += 100
    got = run(built(laid_out(case), ANY), case, inputs)
    np.testing.assert_allclose(got, case.expected(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", PRESETS.values(), ids=lambda target: target.name)
@pytest.mark.parametrize("depth", [64, 256])
@pytest.mark.parametrize("rows", [3, 70])
def test_the_block_keeps_the_limits_of_any_device(target, depth, rows):
    case = Case(m=rows, n=100, d=depth, e=depth)
    func = case.func()
    q, k, v, _ = func.params
    sizes = sizes_of(q, k, v)
    assert opencl_attention.fuses(sizes, target) == (
        opencl.schedule(func, target).attrs[opencl.RULE] == "attention"
    )
    assert opencl_attention.fuses(sizes, target) or depth == 256


def test_what_does_not_fit_goes_to_other_kernels():
    func = Case(d=4096, e=4096).func()
    sizes = sizes_of(*func.params[:3])
    assert choose_block(sizes, Limits(256, 30_000, 1)) is None
    assert not opencl_attention.fuses(sizes, ANY)
    assert not cuda_attention.fuses(sizes, CUDA)
    assert opencl.schedule(func, ANY).attrs[opencl.RULE] != "attention"
    tf32 = dataclasses.replace(CUDA, tf32=True)
    assert not cuda_attention.fuses(sizes_of(*Case().func().params[:3]), tf32)
