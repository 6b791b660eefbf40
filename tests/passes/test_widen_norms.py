"""Normalizations of bfloat16 go by way of float32."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tvm
from tvm import relax

from burnish.passes.widen_norms import WidenNorms
from relax_support import op_names

SIZES = {"layer_norm": [6], "rms_norm": [6], "instance_norm": [4]}


def normalized(name: str, dtype: str) -> tvm.IRModule:
    """``x [2, 4, 6]`` normalized; ``gamma`` and ``beta`` of :data:`SIZES`."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([2, 4, 6], dtype))
    gamma = relax.Var("gamma", relax.TensorType(SIZES[name], dtype))
    beta = relax.Var("beta", relax.TensorType(SIZES[name], dtype))
    nn = relax.op.nn
    call = {
        "layer_norm": lambda: nn.layer_norm(x, gamma, beta, axes=[-1]),
        "rms_norm": lambda: nn.rms_norm(x, gamma, axes=[-1]),
        "instance_norm": lambda: nn.instance_norm(x, gamma, beta, 1, [2]),
    }[name]
    with builder.function("main", [x, gamma, beta]):
        with builder.dataflow():
            out = builder.emit_output(builder.emit(call()))
        builder.emit_func_output(out)
    return builder.get()


@pytest.mark.parametrize("name", SIZES)
def test_bfloat16_is_widened_and_narrowed(name):
    mod = normalized(name, "bfloat16")
    found = WidenNorms()(mod)
    names = op_names(found)
    assert names.count("astype") == (3 if name == "rms_norm" else 4)
    assert str(found["main"].ret_ty.dtype) == "bfloat16"
    tvm.ir.assert_structural_equal(WidenNorms()(found), found)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_other_floats_are_left_alone(dtype):
    mod = normalized("layer_norm", dtype)
    tvm.ir.assert_structural_equal(WidenNorms()(mod), mod)


def test_it_runs_where_tvm_alone_refuses():
    mod = normalized("layer_norm", "bfloat16")
    legal = relax.transform.LegalizeOps()
    with pytest.raises(Exception, match="only support float32 and float16"):
        legal(mod)
    ready = relax.build(legal(WidenNorms()(mod)), target="llvm")
    rng = np.random.default_rng()
    given = [rng.normal(size=s).astype(ml_dtypes.bfloat16) for s in ([2, 4, 6], [6], [6])]
    machine = relax.VirtualMachine(ready, tvm.cpu())
    got = machine["main"](*map(tvm.runtime.tensor, given)).numpy().astype(np.float64)
    x, gamma, beta = (value.astype(np.float64) for value in given)
    away = x - x.mean(-1, keepdims=True)
    want = away / np.sqrt((away**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta
    np.testing.assert_allclose(got, want, rtol=2**-8, atol=2**-8)
