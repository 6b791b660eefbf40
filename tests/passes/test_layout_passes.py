"""WidenConv1d, PutChannelsLast, FoldPadding and SinkTransposes: structure, then numbers."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
import tvm_ffi
from example_counts import COMPILED
from hypothesis import given
from hypothesis import strategies as st
from kernel_support import Case, module, normal
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from burnish.passes.channels_last import FoldPadding, PutChannelsLast, WidenConv1d
from burnish.passes.params import get_params, with_main
from burnish.passes.sink_transposes import ELEMENTWISE, RULES, SinkTransposes
from relax_support import apply, op_names, random_inputs, random_params

op = relax.op


def same_numbers(mod: tvm.IRModule, after: tvm.IRModule) -> None:
    """Both in one build, which is what costs time."""
    inputs = [tvm.runtime.tensor(x) for x in random_inputs(mod)]
    both = tvm.IRModule({"before": symbol(mod, "before"), "after": symbol(after, "after")})
    # TVM's own pipeline is not under test: no instruments.
    with tvm.transform.PassContext(opt_level=1):
        machine = relax.VirtualMachine(relax.build(both, "llvm"), tvm.cpu())
    got, want = (
        machine[name](*inputs, *get_params(source).values())
        for name, source in (("after", after), ("before", mod))
    )
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-5)


def symbol(mod: tvm.IRModule, name: str) -> relax.Function:
    main = relax.utils.copy_with_new_vars(mod["main"])
    return main.with_attr("global_symbol", name).without_attr("num_input")


def twice_is_once(transform, mod: tvm.IRModule) -> None:
    once = transform(mod)
    assert tvm_ffi.structural_equal(transform(once)["main"], once["main"])


def expected(mod: tvm.IRModule, like: tvm.IRModule) -> tvm.IRModule:
    """A written module as a pass leaves it: with the other's attributes."""
    main = mod["main"].with_attr("num_input", int(like["main"].attrs["num_input"]))
    return with_main(mod, main)


# -- WidenConv1d ---------------------------------------------------------------------------------


@I.ir_module
class Narrow:
    @R.function
    def main(x: R.Tensor((2, 8, 20), "float32"), w: R.Tensor((6, 4, 3), "float32")) -> R.Tensor(
        (2, 6, 9), "float32"
    ):
        with R.dataflow():
            out = R.nn.conv1d(x, w, strides=2, padding=[1, 0], dilation=2, groups=2)
            R.output(out)
        return out


@I.ir_module
class Wide:
    @R.function
    def main(x: R.Tensor((2, 8, 20), "float32"), w: R.Tensor((6, 4, 3), "float32")) -> R.Tensor(
        (2, 6, 9), "float32"
    ):
        with R.dataflow():
            a = R.expand_dims(x, axis=[2])
            b = R.expand_dims(w, axis=[2])
            c = R.nn.conv2d(a, b, strides=[1, 2], padding=[0, 1, 0, 0], dilation=[1, 2], groups=2)
            out = R.squeeze(c, axis=[2])
            R.output(out)
        return out


def test_a_convolution_of_a_line_becomes_one_of_a_picture_of_height_one():
    mod = random_params(Narrow)
    after = apply(WidenConv1d(), mod)
    tvm.ir.assert_structural_equal(after["main"], expected(Wide, mod)["main"])
    same_numbers(mod, after)
    twice_is_once(WidenConv1d(), mod)


# -- PutChannelsLast -----------------------------------------------------------------------------


@I.ir_module
class First:
    @R.function
    def main(
        x: R.Tensor((2, 8, 9, 7), "float32"), w: R.Tensor((6, 4, 3, 2), "float32")
    ) -> R.Tensor((2, 6, 5, 8), "float32"):
        with R.dataflow():
            out = R.nn.conv2d(x, w, strides=[2, 1], padding=[1, 0, 1, 2], groups=2)
            R.output(out)
        return out


@I.ir_module
class Last:
    @R.function
    def main(
        x: R.Tensor((2, 8, 9, 7), "float32"), w: R.Tensor((6, 4, 3, 2), "float32")
    ) -> R.Tensor((2, 6, 5, 8), "float32"):
        with R.dataflow():
            a = R.permute_dims(x, axes=[0, 2, 3, 1])
            b = R.permute_dims(w, axes=[0, 2, 3, 1])
            c = R.nn.conv2d(
                a,
                b,
                strides=[2, 1],
                padding=[1, 0, 1, 2],
                groups=2,
                data_layout="NHWC",
                kernel_layout="OHWI",
            )
            out = R.permute_dims(c, axes=[0, 3, 1, 2])
            R.output(out)
        return out


def test_channels_go_last_between_transposes():
    mod = random_params(First)
    after = apply(PutChannelsLast(), mod)
    tvm.ir.assert_structural_equal(after["main"], expected(Last, mod)["main"])
    same_numbers(mod, after)
    twice_is_once(PutChannelsLast(), mod)


# -- FoldPadding ---------------------------------------------------------------------------------


def padded(widths: list[int], mode: str = "constant", value: float = 0.0) -> tvm.IRModule:
    return module(
        Case(
            lambda x, w: op.nn.conv2d(
                op.nn.pad(x, widths, mode, value), w, strides=[2, 1], padding=[1, 0, 0, 2]
            ),
            None,
            {"x": normal(0, 2, 4, 6, 7)},
            {"w": normal(1, 5, 4 + widths[2] + widths[3], 3, 3)},
        )
    )


def test_zeros_around_a_convolution_become_its_padding():
    mod = padded([0, 0, 0, 0, 1, 2, 3, 0])
    after = apply(FoldPadding(), mod)
    assert op_names(after) == ["nn.conv2d"]
    (call,) = [b.value for b in after["main"].body.blocks[0].bindings if b.value is not None][:1]
    assert [int(p) for p in call.attrs.padding] == [2, 3, 2, 2]
    same_numbers(mod, after)
    twice_is_once(FoldPadding(), mod)


@pytest.mark.parametrize(
    ("widths", "mode", "value"),
    [
        ([0, 0, 0, 0, 1, 1, 1, 1], "constant", 1.0),
        ([0, 0, 0, 0, 1, 1, 1, 1], "reflect", 0.0),
        ([0, 0, 1, 0, 1, 1, 1, 1], "constant", 0.0),
        ([1, 0, 0, 0, 1, 1, 1, 1], "constant", 0.0),
    ],
)
def test_other_padding_stays(widths, mode, value):
    mod = padded(widths, mode, value)
    after = apply(FoldPadding(), mod)
    assert op_names(after) == ["nn.pad", "nn.conv2d"]


# -- SinkTransposes ------------------------------------------------------------------------------


def sunk(make, *shapes, weights=()) -> tvm.IRModule:
    case = Case(
        make,
        None,
        {f"x{i}": normal(i, *shape) for i, shape in enumerate(shapes)},
        {f"w{i}": normal(10 + i, *shape) for i, shape in enumerate(weights)},
    )
    mod = module(case)
    after = apply(SinkTransposes(), mod)
    same_numbers(mod, after)
    twice_is_once(SinkTransposes(), mod)
    return after


def first(x):
    return op.permute_dims(x, [0, 3, 1, 2])


def last(x):
    return op.permute_dims(x, [0, 2, 3, 1])


ENDS = {
    "relu": lambda x: op.nn.relu(first(x)),
    "scalar": lambda x: op.multiply(first(x), relax.const(2.0, "float32")),
    "both alike": lambda x: op.add(op.tanh(first(x)), first(x)),
    "max pool": lambda x: op.nn.max_pool2d(first(x), [3, 2], [2, 1], [1, 0], ceil_mode=True),
    "average pool": lambda x: op.nn.avg_pool2d(first(x), [3, 2], [2, 1], [1, 1]),
    "adaptive pool": lambda x: op.nn.adaptive_avg_pool2d(first(x), [2, 3]),
    "resize": lambda x: op.image.resize2d(
        first(x),
        relax.ShapeExpr([9, 11]),
        layout="NCHW",
        method="nearest_neighbor",
        coordinate_transformation_mode="asymmetric",
        rounding_method="floor",
    ),
    "pad": lambda x: op.nn.pad(first(x), [0, 1, 2, 0, 0, 3, 1, 0]),
    "concat": lambda x: op.concat([first(x), op.exp(first(x))], 1),
    "concat from the end": lambda x: op.concat([first(x), first(x)], -1),
    "slice": lambda x: op.strided_slice(first(x), [1, -1], [1, 0], [4, 6], [2, 2]),
    "softmax": lambda x: op.nn.softmax(first(x), 1),
    "sum kept": lambda x: op.sum(first(x), [1, -1], True),
    "expand": lambda x: op.expand_dims(first(x), [1, 3]),
    "squeeze": lambda x: op.squeeze(op.sum(first(x), [2], True), [2]),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_transpose_sinks_below(end):
    """Rules 1 to 3: the transpose comes last, or is gone."""
    after = sunk(ENDS[end], (2, 6, 7, 5))
    names = op_names(after)
    assert names.count("permute_dims") == 1, names
    assert names[-1] == "permute_dims"


@pytest.mark.parametrize("axes", [[1], [2, 3], [-1], [0, 1]])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_a_reduction_renames_its_axes(name, axes):
    after = sunk(lambda x: getattr(op, name)(first(x), axes), (2, 6, 7, 5))
    assert op_names(after)[0] == name


def test_transposes_meet_and_cancel():
    """Rule 4."""
    after = sunk(lambda x: last(op.nn.relu(first(x))), (2, 6, 7, 5))
    assert op_names(after) == ["nn.relu"]
    after = sunk(lambda x: op.permute_dims(op.permute_dims(x, [1, 0, 2]), [1, 0, 2]), (2, 3, 4))
    assert op_names(after) == []
    after = sunk(lambda x: op.permute_dims(op.permute_dims(x), [1, 0, 2]), (2, 3, 4))
    assert op_names(after) == ["permute_dims"]


@pytest.mark.parametrize("shape", [(5, 1, 1), (1, 5, 1, 1), (7,), (6, 7), (2, 5, 6, 7)])
def test_a_constant_is_transposed_in_the_place_of_the_data(shape):
    after = sunk(lambda x: op.add(first(x), relax.const(normal(1, *shape))), (2, 6, 7, 5))
    names = op_names(after)
    assert names[-2:] == ["add", "permute_dims"]


def test_a_bias_is_transposed_in_the_place_of_the_data():
    after = sunk(
        lambda x, w: last(op.add(first(x), op.reshape(w, [1, 5, 1, 1]))),
        (2, 6, 7, 5),
        weights=[(5,)],
    )
    assert "permute_dims" not in op_names(after)[-1:]


def test_operands_transposed_differently_stay():
    make = lambda x, y: op.add(first(x), op.permute_dims(y, [0, 1, 3, 2]))  # noqa: E731
    after = sunk(make, (2, 6, 7, 5), (2, 5, 7, 6))
    assert op_names(after) == ["permute_dims", "permute_dims", "add"]


def test_an_operand_that_is_not_transposed_stays():
    after = sunk(lambda x, y: op.add(first(x), y), (2, 6, 7, 5), (2, 5, 6, 7))
    assert op_names(after) == ["permute_dims", "add"]


@COMPILED
@given(
    order=st.permutations(range(4)),
    axis=st.integers(-4, 3),
    keep=st.booleans(),
    name=st.sampled_from(["sum", "max", "softmax", "concat", "slice", "expand", "relu", "pad"]),
    again=st.permutations(range(4)),
)
def test_any_order_of_axes_gives_the_same_numbers(order, axis, keep, name, again):
    make = {
        "sum": lambda x: op.sum(x, [axis], keep),
        "max": lambda x: op.max(x, [axis], keep),
        "softmax": lambda x: op.nn.softmax(x, axis),
        "concat": lambda x: op.concat([x, op.negative(x)], axis),
        "slice": lambda x: op.strided_slice(x, [axis], [0], [1]),
        "expand": lambda x: op.expand_dims(x, [axis]),
        "relu": op.nn.relu,
        "pad": lambda x: op.nn.pad(x, [0, 1, 2, 0, 0, 3, 1, 1]),
    }[name]

    def chain(x):
        y = make(op.permute_dims(x, list(order)))
        still = name not in ("sum", "max", "expand") or (keep and name != "expand")
        return op.permute_dims(y, list(again)) if still else y

    mod = module(Case(chain, None, {"x": normal(0, 2, 3, 4, 5)}))
    same_numbers(mod, apply(SinkTransposes(), mod))


def test_every_rule_is_of_an_operator_there_is():
    for name in {*ELEMENTWISE, *RULES}:
        assert tvm.ir.Op.get(name)


def test_a_network_of_convolutions_keeps_two_transposes():
    """From channels first to channels last and back, and none between."""

    def net(x, a, b, c):
        y = op.nn.relu(op.add(op.nn.conv2d(x, a, padding=1), op.reshape(c, [1, 8, 1, 1])))
        y = op.nn.max_pool2d(y, [2, 2], [2, 2])
        return op.add(op.nn.conv2d(y, b, padding=1), y)

    case = Case(
        net,
        None,
        {"x": normal(0, 1, 3, 8, 8)},
        {"a": normal(1, 8, 3, 3, 3), "b": normal(2, 8, 8, 3, 3), "c": normal(3, 8)},
    )
    mod = module(case)
    after = SinkTransposes()(PutChannelsLast()(mod))
    same_numbers(mod, after)

    def moves_data(call: relax.Call) -> bool:
        return getattr(call.op, "name", "") == "relax.permute_dims" and not from_weight(call)

    def from_weight(call: relax.Call) -> bool:
        return getattr(call.args[0], "name", "") in "abc" or (
            call.args[0].ty.shape[0] == 1 and (int(call.args[0].ty.shape[2]) == 1)
        )

    moves = []
    relax.analysis.post_order_visit(
        after["main"],
        lambda e: moves.append(e) if isinstance(e, relax.Call) and moves_data(e) else None,
    )
    assert len(moves) == 2
