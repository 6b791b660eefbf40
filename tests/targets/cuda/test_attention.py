"""Attention in one kernel on CUDA: which rule, what it computes, and what it compiles to."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tvm
from attention_support import DTYPES, Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx

from burnish.targets.attention_form import Sizes, sizes_of
from burnish.targets.cuda import attention, nvrtc, sass, warp_attention
from burnish.targets.cuda.resources import resources
from burnish.targets.cuda.schedule import RULE, schedule
from burnish.targets.cuda.source import prepared
from burnish.targets.cuda.target import CudaTarget, parse_cuda
from cuda_support import require_compiler
from sequential import sequential

OLDER, TARGET, NEWER = (parse_cuda(f"cuda:sm_{n}") for n in (75, 80, 90))
ARCHES = st.sampled_from(["sm_75", "sm_86", "sm_90"])
HEAVY = pytest.mark.heavy
BOUNDS = {"float16": 1e-3, "bfloat16": 8e-3}
"""Of a result, of its largest: powers and the result are rounded."""


def compiled(func: tirx.PrimFunc, target: CudaTarget) -> nvrtc.Code:
    """The kernel as scheduled, as machine code."""
    asynchronous = {"tirx.use_async_copy": target.capability >= 80}
    with target.tvm(), tvm.transform.PassContext(config=asynchronous):
        mod = tvm.IRModule({"kernel": func})
        built = tvm.tirx.build(mod, target=target.tvm(), pipeline="s_tir")
    source = prepared(built.imports[0].inspect_source("cuda"))
    return nvrtc.compile_source(source, target.arches[0])


def sizes(case: Case) -> Sizes:
    found = sizes_of(*case.func().params[:3])
    assert found is not None
    return found


def described(case: Case, target: CudaTarget):
    """The kernel of tensor cores, each instruction replaced by what it does, for this CPU."""
    assert warp_attention.choose_tile(sizes(case), target) is not None
    laid = attention.emit(case.func(), target, described=True)
    return tvm.compile(tvm.IRModule({"kernel": sequential(laid)}), target="llvm")["kernel"]


def run(kernel, case: Case, inputs: list[np.ndarray]) -> np.ndarray:
    shape = (case.b, case.m, case.h, case.e)
    out = tvm.runtime.tensor(np.full(shape, np.nan).astype(DTYPES.get(case.dtype, case.dtype)))
    kernel(*map(tvm.runtime.tensor, inputs), out)
    return out.numpy().astype("float64")


def check(case: Case, target: CudaTarget, kernel=None) -> None:
    inputs = case.inputs()
    got, want = run(kernel or described(case, target), case, inputs), case.expected(inputs)
    assert got.shape == want.shape
    if got.size:
        assert np.abs(got - want).max() <= BOUNDS[case.dtype] * max(1e-3, np.abs(want).max())


@pytest.mark.parametrize(
    ("case", "target"),
    [
        (Case(m=35, n=70, d=40, e=33, causal=1, bias=(False, True, True), dtype="float16"), OLDER),
        (Case(b=2, m=9, n=150, h=6, d=64, e=48, causal=2, dtype="bfloat16"), TARGET),
        (Case(m=1, n=300, h=4, d=64, e=64, bias=(True, False, False), dtype="float16"), TARGET),
    ],
    ids=["odd", "shared heads", "one query"],
)
def test_descriptions_on_the_cpu_give_attention(case, target):
    check(case, target)


@HEAVY
@settings(max_examples=8)
@given(case=cases(depths=(8, 20, 33, 64, 128, 200)), data=st.data())
def test_descriptions_give_attention_of_any_form(case, data):
    target = data.draw(st.sampled_from([OLDER, TARGET]))
    dtype = "float16" if target is OLDER else data.draw(st.sampled_from(sorted(BOUNDS)))
    case = dataclasses.replace(case, dtype=dtype)
    if warp_attention.choose_tile(sizes(case), target) is not None:
        check(case, target)
    else:
        assert max(case.d, case.e) > 128


@pytest.mark.parametrize("causal", [2, pytest.param(0, marks=HEAVY)])
def test_open_sizes(causal):
    case = Case(h=4, kv=2, d=32, e=24, causal=causal, bias=(True, False, True), dtype="float16")
    kernel = described(dataclasses.replace(case, open_sizes=True), TARGET)
    for b, m, n in ((2, 7, 9), (1, 1, 1), (1, 1, 200), (3, 33, 64), (1, 90, 130), (0, 5, 6)):
        check(dataclasses.replace(case, b=b, m=m, n=n), TARGET, kernel)


@pytest.mark.parametrize("rows", [9, pytest.param(40, marks=HEAVY)])
def test_rows_that_see_no_key_are_zeros_and_a_score_that_is_no_number_spoils_its_own(rows):
    case = Case(m=rows, n=200, bias=(False, False, True), dtype="float16")
    inputs = case.inputs()
    inputs[1][:, 150:] *= 8
    inputs[3][..., :70] = -np.inf
    inputs[3][..., 3, :] = -np.inf
    inputs[0][0, 5, 1, 2] = np.nan
    got = run(described(case, TARGET), case, inputs)
    assert np.isnan(got[0, 5, 1]).all()
    assert np.isnan(got).sum() == case.e
    np.testing.assert_array_equal(got[0, 3], 0)
    inputs[0][0, 5, 1, 2] = 0
    seen = [row for row in range(rows) if row not in (3, 5)]
    np.testing.assert_allclose(got[:, seen], case.expected(inputs)[:, seen], rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize(
    ("m", "d", "target", "dtype"),
    [
        (3, 128, OLDER, "float16"),
        pytest.param(2000, 128, OLDER, "float16", marks=HEAVY),
        pytest.param(40, 256, OLDER, "float16", marks=HEAVY),
        (40, 64, TARGET, "float16"),
        pytest.param(2000, 64, TARGET, "float16", marks=HEAVY),
        pytest.param(2000, 256, TARGET, "float16", marks=HEAVY),
        pytest.param(2000, 128, NEWER, "bfloat16", marks=HEAVY),
    ],
)
def test_it_runs_on_tensor_cores_and_keeps_its_scores_in_registers(m, d, target, dtype):
    require_compiler()
    bias = (True, False, False) if m == 40 else None
    case = Case(m=m, n=130, d=d, e=d, h=6, kv=3, causal=1, dtype=dtype, bias=bias)
    func = schedule(case.func(), target)
    assert func.attrs[RULE] == "attention"
    code = compiled(func, target)
    (kernel,) = sass.kernels(code.cubin).values()
    assert kernel.count("HMMA") >= 32
    assert kernel.count("LDSM") >= 16
    assert (kernel.count("LDGSTS") > 0) == (target.capability >= 80)
    assert kernel.count(*sass.SPILLS) == 0
    (found,) = resources(code.cubin)
    assert found.local == 0


SPILLED = {
    "few registers": (Case(m=128, n=128, d=32, e=32, h=6, kv=6, causal=1), OLDER, (64, 7)),
    "known steps": (Case(m=40, n=128, d=256, e=256, h=6, kv=6), OLDER, (64, 1)),
    "long values": (Case(m=40, n=130, d=128, e=256, h=6, kv=6), OLDER, (64, 1)),
    "room for four": (Case(m=40, n=130, d=192, e=192, h=6, kv=6), NEWER, (64, 4)),
    "many sums": (Case(m=2000, n=2000, d=32, e=96, h=8, kv=8), TARGET, (128, 2)),
}
"""What the assembler spilled: it saw room for more blocks than shared memory has, unrolled the
loop over tiles of keys, was to leave room for a fifth, or was given too much to hold."""


@pytest.mark.parametrize(
    "name", ["few registers", *(pytest.param(n, marks=HEAVY) for n in list(SPILLED)[1:])]
)
def test_nothing_is_spilled_and_the_compiler_knows_how_many_blocks_there_are(name):
    require_compiler()
    case, target, (threads, blocks) = SPILLED[name]
    case = dataclasses.replace(case, dtype="float16")
    code = compiled(schedule(case.func(), target), target)
    assert f".maxntid {threads}" in code.ptx.decode()
    assert f".minnctapersm {blocks}" in code.ptx.decode()
    (kernel,) = sass.kernels(code.cubin).values()
    (found,) = resources(code.cubin)
    assert (found.local, kernel.count(*sass.SPILLS)) == (0, 0)
    assert len(kernel.main_loops("HMMA")) == 1


@given(case=cases(depths=(32, 64, 100, 128, 256)), arch=ARCHES)
def test_the_blocks_of_a_multiprocessor_have_room(case, arch):
    target, found = parse_cuda(f"cuda:{arch}"), dataclasses.replace(sizes(case), dtype="float16")
    tile = warp_attention.choose_tile(found, target)
    if tile is not None:
        blocks = tile.at_once(found, target)
        assert blocks * tile.shared_memory(found) <= target.shared_memory
        threads = 32 * tile.warps[0] * tile.warps[1]
        assert blocks == 1 or blocks * threads * (tile.registers(found) + 96) <= 65536


@given(
    case=cases(depths=(32, 64, 100, 128, 256)), arch=st.sampled_from(["sm_75", "sm_86", "sm_90"])
)
def test_the_tile_fits_the_memory_of_a_block(case, arch):
    target = parse_cuda(f"cuda:{arch}")
    tile = warp_attention.choose_tile(dataclasses.replace(sizes(case), dtype="float16"), target)
    if tile is None:
        assert max(case.d, case.e) > 128
    else:
        assert tile.shared_memory(sizes(case)) <= target.shared_memory


def test_what_cannot_apply_is_left_to_separate_products():
    """Halves that no tensor core takes, float32 that may be rounded, and very long heads."""
    narrow = dataclasses.replace(sizes(Case()), dtype="bfloat16")
    assert attention.fuses(narrow, TARGET)
    assert not attention.fuses(narrow, OLDER)
    assert attention.fuses(sizes(Case()), TARGET)
    assert not attention.fuses(sizes(Case()), dataclasses.replace(TARGET, tf32=True))
    assert not attention.fuses(sizes(Case(d=512, e=512, dtype="float16")), TARGET)


@pytest.mark.parametrize(
    ("rows", "arch"),
    [
        (1, "sm_80"),
        *(pytest.param(70, arch, marks=HEAVY) for arch in ("sm_75", "sm_90")),
    ],
)
def test_float32_is_one_kernel_that_keeps_its_sums_in_registers(rows, arch):
    require_compiler()
    target = parse_cuda(f"cuda:{arch}")
    func = schedule(Case(m=rows, n=130, d=64, e=64, bias=(True, False, True)).func(), target)
    assert func.attrs[RULE] == "attention"
    code = compiled(func, target)
    (found,) = resources(code.cubin)
    assert found.local == 0
    (kernel,) = sass.kernels(code.cubin).values()
    assert kernel.count(*sass.SPILLS) == 0
