"""Products on tensor cores: which kernels are, how they are tiled, and what they compile to."""

from __future__ import annotations

import dataclasses
import re

import ml_dtypes
import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx

from burnish.passes.lower_contractions import attention_mix, attention_scores
from burnish.targets.cuda import nvrtc, sass, tensor_core
from burnish.targets.cuda.resources import resources
from burnish.targets.cuda.schedule import RULE, schedule
from burnish.targets.cuda.source import prepared
from burnish.targets.cuda.target import CudaTarget, parse_cuda
from burnish.targets.device_lowering import PIPELINE
from cuda_products import convolution, product
from cuda_support import require_compiler
from sequential import sequential

TARGET = parse_cuda("cuda:sm_80")
OLDER = parse_cuda("cuda:sm_75")
TF32 = dataclasses.replace(TARGET, tf32=True)
KINDS = [
    ("float16", OLDER, "HMMA"),
    ("float16", TARGET, "HMMA"),
    ("bfloat16", TARGET, "HMMA"),
    ("int8", OLDER, "IMMA"),
    ("int8", TARGET, "IMMA"),
    ("float32", TF32, "HMMA"),
]
IDS = [f"{dtype}-{target.arches[0]}" for dtype, target, _ in KINDS]
kinds = pytest.mark.parametrize(("dtype", "target", "opcode"), KINDS, ids=IDS)
QUICK = ("float16-sm_75", "bfloat16-sm_80", "int8-sm_80")
quick_kinds = pytest.mark.parametrize(
    ("dtype", "target", "opcode"),
    [
        pytest.param(*kind, id=name, marks=() if name in QUICK else pytest.mark.heavy)
        for name, kind in zip(IDS, KINDS, strict=True)
    ],
)


def source_of(func: tirx.PrimFunc, target: CudaTarget) -> str:
    """The kernel as scheduled, in CUDA C++."""
    asynchronous = {"tirx.use_async_copy": target.capability >= 80}
    with target.tvm(), tvm.transform.PassContext(config=asynchronous):
        mod = tvm.IRModule({"product": func})
        built = tvm.tirx.build(mod, target=target.tvm(), pipeline=PIPELINE)
    return prepared(built.imports[0].inspect_source("cuda"))


def compiled(func: tirx.PrimFunc, target: CudaTarget) -> nvrtc.Code:
    """The same as machine code."""
    return nvrtc.compile_source(source_of(func, target), target.arches[0])


@pytest.mark.parametrize(
    ("shape", "turned"),
    [
        ((128, 256, 192), True),
        pytest.param((128, 256, 192), False, marks=pytest.mark.heavy),
        pytest.param((77, 130, 33), False, marks=pytest.mark.heavy),
    ],
)
@quick_kinds
def test_a_product_runs_on_tensor_cores_and_keeps_its_sums_in_registers(
    dtype, target, opcode, shape, turned
):
    require_compiler()
    func = schedule(product(*shape, turned=turned, dtype=dtype), target)
    assert func.attrs[RULE] == "tensor-core"
    code = compiled(func, target)
    (kernel,) = sass.kernels(code.cubin).values()
    assert kernel.count(opcode) >= 8
    assert kernel.count("LDSM") >= 4
    assert kernel.count(*sass.SPILLS) == 0
    (found,) = resources(code.cubin)
    assert found.local == 0
    whole = shape == (128, 256, 192) and target.capability >= 80
    if dtype in ("float16", "bfloat16"):
        assert (kernel.count("LDGSTS") > 0) == whole


@pytest.mark.parametrize(("dtype", "target", "sums"), [("float16", TARGET, "float"),
                                                       ("int8", OLDER, "int")])  # fmt: skip
def test_rows_of_shared_memory_begin_in_other_banks(dtype, target, sums):
    """A row of the sums, and of an operand, is no multiple of the 32 banks of 4 bytes: the row that
    a thread stores to, or names for ``ldmatrix``, moves by its content and 32 or 16 bytes."""
    func = tensor_core.emit(product(64, 64, 256, dtype=dtype), target)
    tile = tensor_core.choose_tile((1, 64, 64, 256), target)
    source = source_of(func, target)
    (store,) = (line for line in source.split("\n") if f"(({sums}*)buf_dyn_shmem_ptr)[" in line)
    (row,) = re.findall(r"\(int\)threadIdx\.x\) >> 2\) \* (\d+)", store)
    assert int(row) == tile.columns + 8
    wide = {int(n) for n in re.findall(r"\(int\)threadIdx\.x\) & 15\) \* (\d+)", source)}
    element = 2 if dtype == "float16" else 1
    assert wide == {(tile.depth + 16) // element}


@pytest.mark.heavy
@kinds
def test_a_convolution_does_too(dtype, target, opcode):
    require_compiler()
    for channels in (3, 32):
        func = schedule(convolution(channels, 20, 15, 3, 2, dtype), target)
        assert func.attrs[RULE] == "tensor-core"
        (kernel,) = sass.kernels(compiled(func, target).cubin).values()
        assert kernel.count(opcode) >= 4
        assert kernel.count(*sass.SPILLS) == 0


def run(func: tirx.PrimFunc, target: CudaTarget, dtype: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """The result and the operands of the kernel laid out with its intrinsics' descriptions, on
    this CPU."""
    laid = tensor_core.emit(func, target, described=True)
    assert laid is not None
    one = sequential(laid).with_attr("global_symbol", "product")
    ready = tvm.compile(tvm.IRModule({"product": one}), target="llvm")
    rng = np.random.default_rng(0)
    *inputs, out = [tuple(int(n) for n in param.shape) for param in func.params]
    kind = {"bfloat16": ml_dtypes.bfloat16}.get(dtype, dtype)
    given = [rng.integers(-9, 9, shape).astype(kind) for shape in inputs[:2]]
    given += [rng.integers(-9, 9, shape).astype(str(func.params[-1].dtype)) for shape in inputs[2:]]
    result = tvm.runtime.tensor(np.zeros(out, str(func.params[-1].dtype)))
    ready["product"](*map(tvm.runtime.tensor, given), result)
    return result.numpy(), [x.astype(np.float64) for x in given]


def check_product(dtype, target, m, n, k, turned):
    got, (a, b, bias) = run(product(m, n, k, turned=turned, dtype=dtype), target, dtype)
    np.testing.assert_array_equal(got, a @ (b.T if turned else b) + bias)


@pytest.mark.parametrize(("shape", "turned"), [((40, 70, 75), True), ((33, 16, 130), False)])
@quick_kinds
def test_descriptions_on_the_cpu_give_the_product(dtype, target, opcode, shape, turned):
    check_product(dtype, target, *shape, turned)


@pytest.mark.heavy
@settings(max_examples=5)
@given(m=st.integers(2, 80), n=st.integers(2, 80), k=st.integers(16, 200), turned=st.booleans())
@kinds
def test_descriptions_give_products_of_any_size(dtype, target, opcode, m, n, k, turned):
    check_product(dtype, target, m, n, k, turned)


@pytest.mark.heavy
@settings(max_examples=3)
@given(
    channels=st.integers(2, 40),
    outputs=st.integers(2, 40),
    size=st.integers(3, 9),
    window=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
)
@kinds
def test_descriptions_give_convolutions_of_any_size(
    dtype, target, opcode, channels, outputs, size, window, stride
):
    func = convolution(channels, outputs, size, window, stride, dtype)
    if channels * window * window < 16 or (size - 1) // stride < 1:
        assert tensor_core.emit(func, target) is None or channels * window * window >= 16
        return
    got, (a, w) = run(func, target, dtype)
    pad = window // 2
    wide = np.pad(a, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    steps = range(0, size + 2 * pad - window + 1, stride)
    expected = np.stack(
        [
            np.stack(
                [
                    np.einsum("hwc,hwco->o", wide[0, y : y + window, x : x + window], w)
                    for x in steps
                ]
            )
            for y in steps
        ]
    )
    np.testing.assert_array_equal(got[0], expected)


def test_attention_and_a_batch_do_too():
    q = te.placeholder((2, 40, 3, 16), "float16", name="q")
    k = te.placeholder((2, 50, 3, 16), "float16", name="k")
    scores = te.create_prim_func([q, k, attention_scores(0.25, 1)(q, k)])
    p = te.placeholder((2, 3, 40, 50), "float16", name="p")
    mix = te.create_prim_func([p, k, attention_mix("float16")(p, k)])
    for func in (scores, mix):
        assert schedule(func, TARGET).attrs[RULE] == "tensor-core"


@pytest.mark.parametrize(
    "func",
    [product(64, 64, 64, dtype="float32"), product(64, 64, 8), product(1, 64, 64)],
    ids=["float32", "short sums", "one row"],
)
def test_other_products_go_to_the_next_rule(func):
    assert tensor_core.emit(func, TARGET) is None
    assert schedule(func, TARGET).attrs[RULE] != "tensor-core"


@pytest.mark.parametrize(
    ("dtype", "target"), [("bfloat16", OLDER), ("float32", dataclasses.replace(OLDER, tf32=True))]
)
def test_an_architecture_without_them_goes_to_the_next_rule(dtype, target):
    assert tensor_core.emit(product(64, 64, 64, dtype=dtype), target) is None


def test_float32_is_not_rounded_unless_that_is_asked_for():
    func = product(64, 64, 64, dtype="float32")
    assert tensor_core.emit(func, TARGET) is None
    assert tensor_core.emit(func, TF32) is not None


@given(
    rows=st.integers(1, 10_000),
    columns=st.integers(1, 10_000),
    arch=st.sampled_from(["sm_75", "sm_80", "sm_86", "sm_90"]),
)
def test_the_tile_fits_the_memory_of_a_block(rows, columns, arch):
    target = parse_cuda(f"cuda:{arch}")
    tile = tensor_core.choose_tile((1, rows, columns, 64), target)
    assert tile.shared_memory <= target.shared_memory
    known = tensor_core.tiles(target)
    sizes = (1, rows, columns)
    assert all(
        t.count(sizes) < 100 or t.shared_memory > target.shared_memory
        for t in known[: known.index(tile)]
    )
