import numpy as np
import pytest
import tvm
from tvm import relax

from burnish.passes.configs import QuantizeConfig
from burnish.passes.dequantize_rows import DequantizeRows
from burnish.passes.quantize import QuantizeWeights, find_quantized
from relax_support import apply, op_names, random_params, run


def lookup(axis, mode, ids_shape, table=(10, 12)):
    """``take(table, i) `` under the IR convention, the table with normal values."""
    builder = relax.BlockBuilder()
    n = tvm.tirx.Var("n", "int64")
    i = relax.Var("i", relax.TensorType([n, *ids_shape], "int32"))
    w = relax.Var("w", relax.TensorType(table, "float32"))
    with builder.function("main", [i, w]):
        with builder.dataflow():
            out = builder.emit_output(relax.op.take(w, i, axis=axis, mode=mode))
        builder.emit_func_output(out)
    return random_params(builder.get())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("axis", "mode", "ids"),
    [
        (0, "clip", np.array([0, 3, 11, -4, 9])),
        (0, "wrap", np.array([[0, 3], [11, -4]])),
        (1, "clip", np.array([[11, 3], [0, 50]])),
        (0, "fast", np.array([9, 0])),
    ],
)
def test_rows_are_those_of_the_whole_table(axis, mode, ids, symmetric):
    mod = lookup(axis, mode, ids.shape[1:])
    config = QuantizeConfig(bits=4, symmetric=symmetric, granularity="group", group_size=2)
    quantized = QuantizeWeights(config)(mod)
    after = apply(DequantizeRows(), quantized)
    assert op_names(after) == ["call_tir"]
    assert not find_quantized(after)
    ids = ids.astype(np.int32)
    np.testing.assert_array_equal(run(after, ids)[0], run(quantized, ids)[0])
    tvm.ir.assert_structural_equal(apply(DequantizeRows(), after), after)


def test_a_float_table_and_the_mode_nan_are_left_alone():
    mod = lookup(0, "clip", ())
    assert apply(DequantizeRows(), mod).same_as(mod)
    mod = QuantizeWeights(QuantizeConfig(bits=4))(lookup(0, "nan", ()))
    tvm.ir.assert_structural_equal(apply(DequantizeRows(), mod), mod)
