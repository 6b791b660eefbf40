"""Accumulators become registers."""

from __future__ import annotations

import re

import tvm
from kernel_support import Built, Case, lowered, module, normal
from tvm import relax

from burnish.targets.cpu.lowering import PIPELINE, STACK_BYTES, put_locals_on_stack
from burnish.targets.cpu.stages import walk
from burnish.targets.target import parse_target

op = relax.op


def gemm_assembly(mcpu: str) -> str:
    case = Case(
        lambda x, w: op.matmul(x, op.permute_dims(w)),
        lambda x, w: x @ w.T,
        {"x": normal(0, 96, 512)},
        {"w": normal(1, 128, 512)},
    )
    target = parse_target(f"llvm -mcpu={mcpu} -num-cores=2")
    kernel = Built(lowered(module(case), target), target).kernels[0]
    mod = tvm.IRModule({"kernel": kernel.with_attr("global_symbol", "kernel")})
    return tvm.tirx.build(mod, target.tvm(), pipeline=PIPELINE).inspect_source("asm")


def loops_of(assembly: str) -> list[str]:
    """Innermost loops: from a label to the jump back to it, no label between."""
    return re.findall(r"^(\.LBB\w+):\n((?:(?!^\.LBB).*\n)*?)\s+j\w+\s+\1\n", assembly, flags=re.M)


def test_accumulators_stay_in_registers():
    fused = [body for _, body in loops_of(gemm_assembly("skylake-avx512")) if "vfmadd" in body]
    assert fused
    for body in fused:
        assert body.count("vfmadd") >= 8
        assert not re.search(r"vmovups\s+%zmm\d+, -?\d*\(", body), body


def test_only_small_private_buffers_of_known_size_are_marked():
    n = tvm.tirx.Var("n", "int64")
    shapes = {"small": [16], "large": [STACK_BYTES], "open": [n]}
    buffers = {
        name: tvm.tirx.decl_buffer(shape, "float32", name, scope="local")
        for name, shape in shapes.items()
    }
    shared = tvm.tirx.decl_buffer([16], "float32", "shared")
    body = tvm.tirx.SeqStmt([tvm.tirx.AllocBuffer(b) for b in (*buffers.values(), shared)])
    func = tvm.tirx.PrimFunc([n], body)
    marked = put_locals_on_stack(tvm.IRModule({"main": func}))["main"]
    found = {a.buffer.name: dict(a.annotations) for a in walk(marked.body, tvm.tirx.AllocBuffer)}
    assert [name for name, notes in found.items() if notes] == ["small"]
