"""Code for each instruction set: read as assembly, and run where this machine can."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import tvm
from assembly import Code, read_assembly
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import EPILOGUES, FAMILIES
from kernel_support import Case, check, lowered, module, normal
from tvm import relax, tirx

from burnish.passes.configs import QuantizeConfig
from burnish.passes.quantize import QuantizeWeights
from burnish.targets.cpu.lowering import PIPELINE
from burnish.targets.cpu.schedule import schedule
from burnish.targets.target import parse_target
from support import require

op = relax.op


@dataclass(frozen=True)
class InstructionSet:
    """Regular expressions of its assembly; ``fused`` vector multiply-adds on its whole width."""

    target: str
    fused: str
    vector: str
    scalar: str
    spill: str
    absent: str = r"\bno register\b"


_X86_SPILL = r".*%[xyz]mm\d+.*\(%r[sb]p\)|.*\(%r[sb]p\).*%[xyz]mm\d+"
_X86_SCALAR = r"v?(fn?m(add|sub)\d+|add|mul|sub|div)ss"
SETS = {
    "NEON": InstructionSet(
        "llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a76",
        fused=r"fml[as] v\d+\.4s, v\d+\.4s, v\d+\.(4s|s\[\d\])",
        vector=r"f\w+ v\d+\.4s",
        scalar=r"f(n?madd|n?msub|add|mul|sub|div) s\d+",
        spill=r"(ldr|str|ldp|stp|ldur|stur) q\d+.*\[(sp|x29)",
    ),
    "AVX2": InstructionSet(
        "llvm -mcpu=haswell",
        fused=r"vfn?m(add|sub)\d+ps .*%ymm",
        vector=r"v\w+ps .*%ymm",
        scalar=_X86_SCALAR,
        spill=_X86_SPILL,
        absent=r"%zmm|%ymm(1[6-9]|2\d|3\d)",
    ),
    "AVX-512": InstructionSet(
        "llvm -mcpu=x86-64-v4",
        fused=r"vfn?m(add|sub)\d+ps .*%zmm",
        vector=r"v\w+ps .*%zmm",
        scalar=_X86_SCALAR,
        spill=_X86_SPILL,
    ),
}
RUNTIME = {"TVMFFIErrorSetRaisedFromCStrParts", "memset", "memcpy", "memmove"}


def linear(rows: int, epilogue: str = "relu") -> Case:
    ours, theirs = EPILOGUES[epilogue]
    return Case(
        lambda x, r, w, b: ours(op.matmul(x, op.permute_dims(w)), b, r),
        lambda x, r, w, b: theirs(x @ w.T, b, r),
        {"x": normal(0, rows, 256), "r": normal(1, rows, 256)},
        {"w": normal(2, 256, 256), "b": normal(3, 256)},
    )


def convolution(channels: int, out: int, kernel: int, groups: int = 1, strides: int = 1) -> Case:
    def make(x: relax.Expr, w: relax.Expr) -> relax.Expr:
        padding = kernel // 2
        return op.nn.relu(op.nn.conv2d(x, w, strides=strides, padding=padding, groups=groups))

    weight = normal(1, out, channels // groups, kernel, kernel)
    return Case(make, None, {"x": normal(0, 1, channels, 28, 28)}, {"w": weight})


def rows(make: object) -> Case:
    return Case(make, None, {"x": normal(0, 64, 256)})


HEADS = {name: normal(i, 1, 64, 4, 32) for i, name in enumerate("qkv")}
CASES: Mapping[str, Case] = {
    "gemm": linear(64),
    "gemm with gelu": linear(64, "gelu"),
    "int8 gemm": linear(64),
    "gemv": linear(1),
    "convolution": convolution(32, 64, 3, strides=2),
    "pointwise": convolution(64, 128, 1),
    "depthwise": convolution(64, 64, 3, groups=64),
    "matmul": Case(op.matmul, None, {"x": normal(0, 4, 64, 64), "y": normal(1, 4, 64, 64)}),
    "attention": Case(lambda q, k, v: op.nn.attention(q, k, v), None, HEADS),
    "softmax": rows(lambda x: op.nn.softmax(x, -1)),
    "layer norm": rows(
        lambda x: op.nn.layer_norm(
            x, relax.const(normal(1, 256)), relax.const(normal(2, 256)), [-1]
        )
    ),
    "exp": rows(op.exp),
    "log": rows(op.log),
    "tanh": rows(op.tanh),
    "erf": rows(op.erf),
    "sigmoid": rows(op.sigmoid),
    "max pool": Case(
        lambda x: op.nn.max_pool2d(x, [3, 3], [2, 2], [1, 1], layout="NHWC"),
        None,
        {"x": normal(0, 1, 28, 28, 64)},
    ),
    "mean": rows(lambda x: op.mean(x, [1])),
}
TILED = ("gemm", "gemm with gelu", "int8 gemm", "convolution", "pointwise", "matmul")
FUSED = (
    *TILED,
    "attention",
    "gemv",
    "depthwise",
    "softmax",
    "layer norm",
    "exp",
    "log",
    "tanh",
    "erf",
)


@functools.cache
def text_of(name: str, case: str) -> str:
    """Assembly of the kernels of a case for an instruction set."""
    target = parse_target(SETS[name].target)
    mod = module(CASES[case])
    if case == "int8 gemm":
        mod = QuantizeWeights(QuantizeConfig(bits=8))(mod)
    kernels = {
        str(var.name_hint): schedule(func, target).with_attr("global_symbol", str(var.name_hint))
        for var, func in lowered(mod, target).functions.items()
        if isinstance(func, tirx.PrimFunc)
    }
    built = tvm.compile(tvm.IRModule(kernels), target=target.tvm(), tir_pipeline=PIPELINE)
    return str(built.mod.inspect_source("asm"))


def code_of(name: str, case: str) -> Code:
    return read_assembly(text_of(name, case))


everywhere = pytest.mark.parametrize("name", SETS)


@everywhere
@pytest.mark.parametrize("case", CASES)
def test_no_kernel_calls_a_library_for_mathematics(name, case):
    assert code_of(name, case).calls <= RUNTIME


@everywhere
@pytest.mark.parametrize("case", CASES)
def test_loops_compute_on_whole_vectors(name, case):
    """The hottest loop has the vectors of its instruction set, and next to no scalar
    arithmetic: partial results are folded at the end of a row."""
    its = SETS[name]
    loop = code_of(name, case).hottest(its.vector)
    assert loop.count(its.vector) >= 1
    assert 8 * loop.count(its.scalar) <= loop.count(its.vector)
    if case in FUSED:
        assert code_of(name, case).hottest(its.fused).count(its.fused) >= 1


@everywhere
@pytest.mark.parametrize("case", TILED)
def test_accumulators_of_a_tile_stay_in_registers(name, case):
    """The loop over the reduction: mostly multiply-adds, and no vector goes to the stack."""
    its = SETS[name]
    loop = code_of(name, case).hottest(its.fused)
    fused = loop.count(its.fused)
    assert fused >= 12
    assert loop.count(its.spill) == 0, loop.lines
    assert len(loop.lines) <= 2.5 * fused


@everywhere
def test_attention_is_tiled_in_registers(name):
    """Its scores lie on the stack; the loops over the reduction read them, and write nothing."""
    its = SETS[name]
    loop = code_of(name, "attention").densest(its.fused, 8)
    assert len(loop.lines) <= 2.5 * loop.count(its.fused)
    assert loop.count(r"st[pr] |vmov\w+ %[xyz]mm\d+, .*\(") == 0, loop.lines


@everywhere
def test_no_other_instruction_set_is_used(name):
    for case in CASES:
        assert not re.search(SETS[name].absent, text_of(name, case)), case


# -- run here ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", ["x86-64", "haswell"])
def test_kernels_for_older_x86_compute_what_float64_does(cpu):
    target = parse_target(f"llvm -mcpu={cpu}")
    why = target.why_not_here()
    require(not why, f"code for {cpu} does not run here: {why}")

    @given(case=st.one_of(list(FAMILIES.values())))
    def agrees(case):
        check(case, target)

    agrees()


# -- the reading itself --------------------------------------------------------------------------


def test_the_innermost_loop_is_found():
    text = """
f:
.LBB0_1:
	ldr	q0, [x1]
.LBB0_2:                // inner
	fmla	v1.4s, v0.4s, v2.s[0]
	str	q1, [sp, #16]
	b.ne	.LBB0_2
	fmadd	s1, s2, s3, s4
	bl	expf
	bl	f
	cbnz	x0, .LBB0_1
	b	.LBB0_9
.LBB0_9:
	ret
"""
    code, its = read_assembly(text), SETS["NEON"]
    assert code.calls == {"expf"}
    (loop,) = code.loops
    assert len(loop.lines) == 3
    assert (loop.count(its.fused), loop.count(its.spill), loop.count(its.scalar)) == (1, 1, 0)


def test_the_patterns_know_x86():
    avx = SETS["AVX2"]
    (loop,) = read_assembly(
        """
g:
.LBB1_4:
	vmovaps	32(%rsp), %ymm3
	vfmadd231ps	(%rsi), %ymm1, %ymm2    # ymm2 = ...
	vfmadd231ss	(%rsi), %xmm1, %xmm2
	movq	8(%rsp), %rax
	jne	.LBB1_4
"""
    ).loops
    counts = [loop.count(p) for p in (avx.fused, avx.vector, avx.scalar, avx.spill)]
    assert counts == [1, 2, 1, 1]
