import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from burnish.passes.clean import DropUnusedWeights
from burnish.passes.fold_batch_norm import FoldBatchNorm
from burnish.passes.fold_weights import FoldWeights
from burnish.passes.params import get_params, without_params
from relax_support import apply, from_torch, named, op_names, random_inputs, random_params, run


@I.ir_module
class Bias:
    @R.function
    def main(
        x: R.Tensor((1, 4, 2, 2), "float32"),
        bias: R.Tensor((4,), "float32"),
        gain: R.Tensor((4,), "float32"),
    ) -> R.Tensor((1, 4, 2, 2), "float32"):
        with R.dataflow():
            g = R.multiply(bias, gain)
            b = R.reshape(g, R.shape([1, 4, 1, 1]))
            out = R.add(x, b)
            R.output(out)
        return out


@I.ir_module
class BiasFolded:
    @R.function
    def main(
        x: R.Tensor((1, 4, 2, 2), "float32"), bias: R.Tensor((1, 4, 1, 1), "float32")
    ) -> R.Tensor((1, 4, 2, 2), "float32"):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            out = R.add(x, bias)
            R.output(out)
        return out


def test_a_chain_is_computed_and_keeps_the_weights_name():
    mod = random_params(Bias)
    after = apply(FoldWeights(), mod)
    tvm.ir.assert_structural_equal(without_params(after), BiasFolded)
    x = random_inputs(mod)
    np.testing.assert_array_equal(run(after, *x)[0], run(mod, *x)[0])
    tvm.ir.assert_structural_equal(apply(FoldWeights(), after), after)


def build(params, make, x_shape=(2, 4)):
    """``make(builder, x, *weights)`` under the IR convention; params: name -> array."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(x_shape, "float32"))
    weights = [relax.Var(n, relax.TensorType(v.shape, str(v.dtype))) for n, v in params.items()]
    with builder.function("main", [x, *weights]):
        with builder.dataflow():
            out = builder.emit_output(make(builder, x, *weights))
        builder.emit_func_output(out)
    return named(builder.get(), params)


def test_a_second_result_or_a_weight_still_read_gets_a_number():
    def make(bb, x, w):
        wide = bb.emit(relax.op.add(x, bb.emit(relax.op.reshape(w, (1, 4)))))
        return relax.op.multiply(bb.emit(relax.op.multiply(wide, bb.emit(relax.op.negative(w)))), w)

    mod = build({"w": np.arange(4, dtype="float32")}, make)
    after = apply(FoldWeights(), mod)
    assert {k: tuple(v.shape) for k, v in get_params(after).items()} == {
        "w": (4,),
        "w~1": (1, 4),
        "w~2": (4,),
    }
    x = random_inputs(mod)
    np.testing.assert_array_equal(run(after, *x)[0], run(mod, *x)[0])


def test_results_of_a_weight_no_longer_read_share_out_its_name():
    def make(bb, x, w):
        wide = bb.emit(relax.op.add(x, bb.emit(relax.op.reshape(w, (1, 4)))))
        return relax.op.multiply(wide, bb.emit(relax.op.negative(w)))

    after = apply(FoldWeights(), build({"w": np.arange(4, dtype="float32")}, make))
    assert list(get_params(after)) == ["w", "w~1"]


def test_the_largest_weight_gives_the_name():
    def make(bb, x, g, v):
        return relax.op.matmul(x, bb.emit(relax.op.multiply(v, g)))

    params = {"g": np.ones((4, 1), "float32"), "v": np.ones((4, 3), "float32")}
    assert list(get_params(apply(FoldWeights(), build(params, make)))) == ["v"]


def test_a_transpose_that_matmul_reads_stays():
    def make(bb, x, w):
        return relax.op.matmul(x, bb.emit(relax.op.permute_dims(w)))

    mod = build({"w": np.ones((3, 4), "float32")}, make)
    tvm.ir.assert_structural_equal(apply(FoldWeights(), mod), mod)


def test_a_transpose_that_anything_else_reads_is_computed():
    def make(bb, x, w):
        return relax.op.add(x, bb.emit(relax.op.permute_dims(w)))

    mod = build({"w": np.arange(8, dtype="float32").reshape(4, 2)}, make)
    after = apply(FoldWeights(), mod)
    assert op_names(after) == ["add"]
    np.testing.assert_array_equal(get_params(after)["w"].numpy(), np.arange(8).reshape(4, 2).T)


def test_what_would_grow_stays():
    def grow(bb, x, w):
        return relax.op.add(x, bb.emit(relax.op.broadcast_to(w, (64, 64))))

    mod = build({"w": np.ones((64,), "float32")}, grow, (64, 64))
    tvm.ir.assert_structural_equal(apply(FoldWeights(), mod), mod)

    def widen(bb, x, w):
        return relax.op.add(x, bb.emit(relax.op.astype(w, "float32")))

    mod = build({"w": np.ones((64, 64), "float16")}, widen, (64, 64))
    tvm.ir.assert_structural_equal(apply(FoldWeights(), mod), mod)

    def copy(bb, x, w):
        flat = bb.emit(relax.op.reshape(w, (4096,)))
        return relax.op.add(
            bb.emit(relax.op.matmul(x, w)), bb.emit(relax.op.reshape(flat, (64, 64)))
        )

    mod = build({"w": np.ones((64, 64), "float32")}, copy, (64, 64))
    tvm.ir.assert_structural_equal(apply(FoldWeights(), mod), mod)


def test_constants_alone_become_a_constant():
    def make(bb, x):
        small = relax.const(np.arange(4, dtype="float32"))
        return relax.op.add(x, bb.emit(relax.op.rsqrt(bb.emit(relax.op.sqrt(
            bb.emit(relax.op.add(small, relax.const(np.float32(1)))))))))  # fmt: skip

    mod = build({}, make)
    after = apply(FoldWeights(), mod)
    assert op_names(after) == ["add"]
    x = random_inputs(mod)
    np.testing.assert_allclose(run(after, *x)[0], run(mod, *x)[0], rtol=1e-6)


def test_new_infinities_and_integer_division_stay():
    def make(bb, x, w, i):
        third = bb.emit(relax.op.astype(bb.emit(relax.op.divide(i, i)), "float32"))
        return relax.op.add(bb.emit(relax.op.add(x, bb.emit(relax.op.rsqrt(w)))), third)

    mod = build({"w": np.zeros(4, "float32"), "i": np.ones(4, "int32")}, make)
    tvm.ir.assert_structural_equal(apply(FoldWeights(), mod), mod)


def test_joined_weights_and_unit_axes():
    def make(bb, x, a, b):
        both = bb.emit(relax.op.concat([a, b], axis=0))
        line = bb.emit(relax.op.squeeze(bb.emit(relax.op.expand_dims(both, 0)), 0))
        return relax.op.subtract(x, bb.emit(relax.op.divide(line, relax.const(np.float32(2)))))

    params = {"a": np.ones(1, "float32"), "b": np.arange(3, dtype="float32")}
    mod = build(params, make)
    after = apply(FoldWeights(), mod)
    assert op_names(after) == ["subtract"]
    assert list(get_params(after)) == ["b"]
    np.testing.assert_array_equal(get_params(after)["b"].numpy(), [0.5, 0, 0.5, 1])


def test_a_result_that_is_an_output_is_the_weight_itself():
    def make(_bb, _x, w):
        return relax.op.reshape(w, (2, 2))

    mod = build({"w": np.arange(4, dtype="float32")}, make)
    after = apply(FoldWeights(), mod)
    assert op_names(after) == []
    np.testing.assert_array_equal(run(after, *random_inputs(mod))[0], [[0, 1], [2, 3]])


def test_an_unread_weight_is_dropped_and_an_unread_input_is_not():
    mod = random_params(Bias)
    extra = np.ones(3, "float32")
    params = {"dead": extra, **{k: v.numpy() for k, v in get_params(mod).items()}}
    main = mod["main"]
    dead = relax.Var("dead", relax.TensorType((3,), "float32"))
    spare = relax.Var("spare", relax.TensorType((3,), "float32"))
    main = relax.Function(
        [spare, main.params[0], dead, *main.params[1:]], main.body, main.ret_ty, True
    )
    mod = named(tvm.IRModule({"main": main}), params, inputs=2)
    after = apply(DropUnusedWeights(), mod)
    assert list(get_params(after)) == ["bias", "gain"]
    assert [var.name for var in after["main"].params] == ["spare", "x", "bias", "gain"]
    tvm.ir.assert_structural_equal(apply(DropUnusedWeights(), after), after)
    assert list(get_params(apply(FoldWeights(), mod))) == ["dead", "bias"]


def test_the_whole_clean_up_of_a_pytorch_network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(),
        nn.Linear(64, 5),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    mod = from_torch(model, x)
    for transform in (
        relax.transform.EliminateCommonSubexpr(),
        relax.transform.FoldConstant(),
        relax.transform.DeadCodeElimination(["main"]),
        FoldBatchNorm(),
        FoldWeights(),
        DropUnusedWeights(),
    ):
        mod = apply(transform, mod)
    assert list(get_params(mod)) == [
        "0.weight",
        "0.bias",
        "3.weight",
        "3.bias",
        "5.weight",
        "5.bias",
    ]
    assert " ".join(op_names(mod)) == (
        "nn.conv2d add nn.relu nn.conv2d add reshape permute_dims matmul add"
    )
    with torch.no_grad():
        want = model(x).numpy()
    np.testing.assert_allclose(run(mod, x.numpy())[0], want, rtol=1e-4, atol=1e-5)
