"""Products on tensor cores: which kernels are, how they are tiled, and what they compile to."""

from __future__ import annotations

import pytest
import tvm
from cuda_support import require_compiler
from hypothesis import given
from hypothesis import strategies as st
from tvm import te, tirx

from burnish.passes.lower_contractions import attention_mix, attention_scores, matmul
from burnish.targets.cuda import nvrtc, tensor_core
from burnish.targets.cuda.resources import resources
from burnish.targets.cuda.schedule import RULE, schedule
from burnish.targets.cuda.target import parse_cuda

TARGET = parse_cuda("cuda:sm_80")


def product(m: int, n: int, k: int, *, turned: bool = True, dtype: str = "float16"):
    """``a [m, k] b [n, k]`` (or ``b [k, n]``) plus a bias."""
    a = te.placeholder((m, k), dtype, name="a")
    b = te.placeholder((n, k) if turned else (k, n), dtype, name="b")
    bias = te.placeholder((n,), dtype, name="bias")
    y = matmul(False, turned, dtype)(a, b)
    out = te.compute(y.shape, lambda i, j: y[i, j] + bias[j], name="out")
    return te.create_prim_func([a, b, bias, out]).with_attr("global_symbol", "product")


def compiled(func: tirx.PrimFunc) -> nvrtc.Code:
    """The kernel as scheduled, as machine code."""
    with (
        TARGET.tvm(),
        tvm.transform.PassContext(config={"tirx.use_async_copy": True}),
    ):
        mod = tvm.IRModule({"product": func})
        built = tvm.tirx.build(mod, target=TARGET.tvm(), pipeline="s_tir")
    return nvrtc.compile_source(built.imports[0].inspect_source("cuda"), "sm_80")


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("shape", [(128, 256, 192), (77, 130, 33)])
def test_a_product_runs_on_tensor_cores_and_keeps_its_sums_in_registers(shape, turned):
    require_compiler()
    func = schedule(product(*shape, turned=turned), TARGET)
    assert func.attrs[RULE] == "tensor-core"
    code = compiled(func)
    assert b"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32" in code.ptx
    assert b"ldmatrix" in code.ptx
    (found,) = resources(code.cubin)
    assert found.local == 0
    whole = shape == (128, 256, 192)
    assert (b"cp.async.c" in code.ptx.replace(b"cp.async.commit", b"")) == whole


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


def test_an_architecture_without_them_goes_to_the_next_rule():
    older = parse_cuda("cuda:sm_75")
    assert schedule(product(64, 64, 64), older).attrs[RULE] != "tensor-core"


@given(
    rows=st.integers(1, 10_000),
    columns=st.integers(1, 10_000),
    arch=st.sampled_from(["sm_80", "sm_86", "sm_90"]),
)
def test_the_tile_fits_the_memory_of_a_block(rows, columns, arch):
    memory = parse_cuda(f"cuda:{arch}").shared_memory
    tile = tensor_core.choose_tile((1, rows, columns, 64), memory)
    assert tile.shared_memory <= memory
    larger = tensor_core.TILES[: tensor_core.TILES.index(tile)]
    sizes = (1, rows, columns)
    assert all(t.count(sizes) < 100 or t.shared_memory > memory for t in larger)
