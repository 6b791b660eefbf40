"""Machine code of products of few rows: whole vectors of weights, and nothing spilled."""

from __future__ import annotations

import pytest
import tvm
from tvm import te, tirx, topi

from burnish.passes.dequantize import CodeLayout
from burnish.passes.lower_contractions import matmul, matmul_of_codes
from burnish.targets.cuda import nvrtc, sass
from burnish.targets.cuda.resources import resources
from burnish.targets.cuda.schedule import RULE, schedule
from burnish.targets.cuda.source import prepared
from burnish.targets.cuda.target import parse_cuda
from cuda_support import require_compiler

N, K = 4096, 16384


def plain(m: int, dtype: str) -> list[te.Tensor]:
    a, b = te.placeholder((m, K), dtype, name="a"), te.placeholder((N, K), dtype, name="b")
    if dtype == "int8":
        return [a, b, topi.nn.matmul(a, b, transpose_b=True, out_dtype="int32")]
    return [a, b, matmul(False, True, dtype)(a, b)]


def of_codes(m: int, bits: int) -> list[te.Tensor]:
    """Of float16, a scale for 128 codes."""
    layout = CodeLayout(
        shape=(N, K),
        dtype="float16",
        bits=bits,
        symmetric=True,
        granularity="group",
        group_size=128,
        group_axis=1,
        channel_axis=0,
        reduction_axes=(1,),
        scale_shape=(N, K // 128),
        scale_dtype="float32",
    )
    a = te.placeholder((m, K), "float16", name="a")
    codes = te.placeholder(layout.code_shape, layout.code_dtype, name="codes")
    scale = te.placeholder(layout.scale_shape, "float32", name="scale")
    return [a, codes, scale, matmul_of_codes(True, "float16", layout)(a, codes, scale)]


CASES = {
    "float32": lambda m: plain(m, "float32"),
    "float16": lambda m: plain(m, "float16"),
    "bfloat16": lambda m: plain(m, "bfloat16"),
    "int8": lambda m: plain(m, "int8"),
    "8-bit codes": lambda m: of_codes(m, 8),
    "4-bit codes": lambda m: of_codes(m, 4),
}
QUICK = {("float16", 1, "sm_90"), ("4-bit codes", 4, "sm_80"), ("float32", 8, "sm_75")}


@pytest.mark.parametrize(
    ("name", "m", "arch"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.heavy)
        for case in [
            (name, m, arch)
            for name in CASES
            for m, arch in ((1, "sm_75"), (1, "sm_90"), (4, "sm_80"), (8, "sm_75"))
        ]
        if case[0] in ("float32", "8-bit codes", "4-bit codes")
        or (case[1] < 8 and case[::2] != ("bfloat16", "sm_75"))
    ],
)
def test_the_main_loop_reads_weights_16_bytes_at_a_time(name, m, arch):
    require_compiler()
    target = parse_cuda(f"cuda:{arch}")
    func = te.create_prim_func(CASES[name](m)).with_attr("global_symbol", "product")
    laid = schedule(func, target)
    assert laid.attrs[RULE] == "matvec"
    code = compiled(laid, arch)
    (kernel,), (takes,) = sass.kernels(code).values(), resources(code)
    assert takes.local == 0
    assert kernel.count(*sass.SPILLS) == 0
    loops = kernel.main_loops("FFMA", "IMAD", "IDP")
    assert any(sass.wide_loads(loop) >= 2 for loop in loops)
    # Each row's values are read as vectors too; a scale is one load for a whole vector of codes.
    every = [one for loop in loops for one in loop]
    loads = sum(one.opcode == "LDG" for one in every)
    wide = sass.wide_loads(every)
    scalar = loads - wide - sass.wide_loads(every, 64)
    assert scalar <= (wide if "codes" in name else 0)
    assert kernel.count(*sass.MATRIX) == 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_tensor_cores_take_more_than_four_rows(dtype):
    target = parse_cuda("cuda:sm_80")
    rules = {
        m: schedule(te.create_prim_func(plain(m, dtype)), target).attrs[RULE] for m in (4, 5, 8, 9)
    }
    other = "tensor-core" if dtype == "float16" else "matvec"
    last = "tensor-core" if dtype == "float16" else "matmul"
    assert rules == {4: "matvec", 5: other, 8: other, 9: last}


def compiled(laid: tirx.PrimFunc, arch: str) -> bytes:
    target = parse_cuda(f"cuda:{arch}")
    with target.tvm():
        mod = tvm.IRModule({"product": laid})
        built = tvm.tirx.build(mod, target=target.tvm(), pipeline="s_tir")
    return nvrtc.compile_source(prepared(built.imports[0].inspect_source("cuda")), arch).cubin
