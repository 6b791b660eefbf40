"""Products lowered to kernels with sums in float32, run on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from tvm import relax
from tvm.tirx import PrimFunc

import burnish
from burnish.passes.lower_contractions import LowerContractions


def run(build, *arrays: np.ndarray) -> np.ndarray:
    """What a graph gives after the pass, on TVM's CPU."""
    builder = relax.BlockBuilder()
    given = [
        relax.Var(f"x{n}", relax.TensorType(a.shape, str(a.dtype))) for n, a in enumerate(arrays)
    ]
    with builder.function("main", given):
        with builder.dataflow():
            out = builder.emit_output(builder.emit(build(builder, *given)))
        builder.emit_func_output(out)
    mod = LowerContractions()(builder.get())
    assert "R.matmul" not in str(mod.script())
    assert "R.nn.attention" not in str(mod.script())
    machine = relax.VirtualMachine(relax.build(mod, "llvm"), tvm.cpu())
    return machine["main"](*map(tvm.runtime.tensor, arrays)).numpy()


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def turned(builder, x):
    rank = int(x.ty.ndim)
    return builder.emit(relax.op.permute_dims(x, [*range(rank - 2), rank - 1, rank - 2]))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    ("a", "b"), [((3, 5), (5, 7)), ((2, 3, 5), (5, 7)), ((2, 1, 3, 5), (4, 5, 7))]
)
def test_matmul_plain_and_with_either_operand_turned(a, b, dtype):
    x, y = normal(*a, dtype=dtype), normal(*b, dtype=dtype)
    want = np.matmul(x.astype("float64"), y.astype("float64"))
    bound = 1e-6 if dtype == "float32" else 2e-3
    plain = run(lambda _, p, q: relax.op.matmul(p, q), x, y)
    left = np.ascontiguousarray(x.swapaxes(-1, -2))
    right = np.ascontiguousarray(y.swapaxes(-1, -2))
    both = run(lambda b, p, q: relax.op.matmul(turned(b, p), turned(b, q)), left, right)
    for got in (plain, both):
        assert got.dtype == dtype
        assert np.abs(got - want).max() <= bound * np.abs(want).max()


def test_sums_of_float16_are_float32():
    x, y = np.full((1, 4096), 1, "float16"), np.full((4096, 1), 1, "float16")
    got = run(lambda _, p, q: relax.op.matmul(p, q), x, y)
    assert float(got.item()) == 4096  # a float16 sum stops at 2048


def test_attention_is_one_kernel_where_the_target_has_one():
    """Heads of keys that are repeated are read in place; the sizes are what the target is asked."""
    asked = []

    def lowered(fuses):
        builder = relax.BlockBuilder()
        shapes = [(1, 5, 4, 8), (1, 7, 2, 8), (1, 7, 2, 8)]
        q, k, v = (
            relax.Var(n, relax.TensorType(s, "float16")) for n, s in zip("qkv", shapes, strict=True)
        )
        with builder.function("main", [q, k, v]):
            with builder.dataflow():
                k, v = (builder.emit(relax.op.repeat(x, 2, 2)) for x in (k, v))
                out = builder.emit_output(builder.emit(relax.op.nn.attention(q, k, v)))
            builder.emit_func_output(out)
        mod = LowerContractions(fuses)(builder.get())
        return [var.name_hint for var, func in mod.functions.items() if isinstance(func, PrimFunc)]

    assert lowered(lambda sizes: not asked.append(sizes)) == ["attention"]
    (sizes,) = asked
    assert (sizes.heads, sizes.key_heads, sizes.rows, sizes.dtype) == (4, 2, 10, "float16")
    assert {"scores", "mix"} <= set(lowered(lambda _sizes: False))


@pytest.mark.parametrize("causal", [None, "TopLeft", "BottomRight"])
def test_attention(causal):
    q, k, v = normal(2, 5, 4, 8), normal(2, 7, 4, 8), normal(2, 7, 4, 6)
    bias = normal(2, 1, 5, 7)
    got = run(
        lambda _, q, k, v, b: relax.op.nn.attention(q, k, v, bias=b, causal_mask=causal),
        *(q, k, v, bias),
    )
    mask = torch.from_numpy(bias).clone()
    if causal:
        shift = 0 if causal == "TopLeft" else 2
        hidden = torch.arange(7)[None] > torch.arange(5)[:, None] + shift
        mask = mask.masked_fill(hidden, -torch.inf)
    heads = [torch.from_numpy(x).transpose(1, 2) for x in (q, k, v)]
    want = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)
    np.testing.assert_allclose(got, want.transpose(1, 2).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quantize", ["int8", "int4"])
@pytest.mark.parametrize(("rows", "decoded"), [(8, False), (9, True)])
def test_few_rows_read_the_codes_of_a_weight_and_many_the_weight(quantize, rows, decoded):
    net = torch.nn.Linear(96, 40).eval()
    given = (torch.randn(rows, 96),)
    optimized = burnish.optimize(
        burnish.import_model(net, given), "opencl", quantize=quantize, do_no_harm=False
    )
    names = [var.name_hint for var, f in optimized.mod.functions.items() if hasattr(f, "body")]
    assert any(name.startswith("dequantize") for name in names) == decoded
    codes = "uint32" if quantize == "int4" else "int8"
    products = [
        func
        for var, func in optimized.mod.functions.items()
        if "matmul" in var.name_hint and isinstance(func, tvm.tirx.PrimFunc)
    ]
    assert len(products) == 1
    assert any(str(p.dtype) == codes for p in products[0].params) != decoded
