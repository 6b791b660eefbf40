import numpy as np
import pytest
import torch
import tvm
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from burnish.passes.clean import DropUnusedWeights
from burnish.passes.fold_batch_norm import FoldBatchNorm
from burnish.passes.norms import affine_form, scale_channels
from burnish.passes.params import get_params, with_params, without_params
from relax_support import apply, from_torch, op_names, random_inputs, random_params, run


@I.ir_module
class Plain:
    @R.function
    def main(
        x: R.Tensor((2, 3, 6, 6), "float32"),
        w: R.Tensor((4, 3, 3, 3), "float32"),
        gamma: R.Tensor((4,), "float32"),
        beta: R.Tensor((4,), "float32"),
        mean: R.Tensor((4,), "float32"),
        var: R.Tensor((4,), "float32"),
    ) -> R.Tensor((2, 4, 4, 4), "float32"):
        with R.dataflow():
            y = R.nn.conv2d(x, w)
            n = R.nn.batch_norm(y, gamma, beta, mean, var, axis=1, training=False)
            out = R.nn.relu(n[0])
            R.output(out)
        return out


@I.ir_module
class PlainFolded:
    @R.function
    def main(
        x: R.Tensor((2, 3, 6, 6), "float32"),
        w: R.Tensor((4, 3, 3, 3), "float32"),
        beta: R.Tensor((4,), "float32"),
    ) -> R.Tensor((2, 4, 4, 4), "float32"):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            y = R.nn.conv2d(x, w)
            b = R.reshape(beta, R.shape([1, 4, 1, 1]))
            n = R.add(y, b)
            out = R.nn.relu(n)
            R.output(out)
        return out


def folded(mod):
    """After the pass and the drop of what it left unread, with checks on the way."""
    return apply(DropUnusedWeights(), apply(FoldBatchNorm(), mod))


def check_same(mod, after, *inputs, tolerance=2e-5):
    """Outputs agree to ``tolerance`` of the largest."""
    given_inputs = inputs or random_inputs(mod)
    for want, got in zip(run(mod, *given_inputs), run(after, *given_inputs), strict=True):
        assert np.abs(got - want).max() <= tolerance * max(1.0, np.abs(want).max())


def test_the_bias_takes_the_name_of_beta_where_the_convolution_has_none():
    mod = random_params(Plain)
    after = folded(mod)
    tvm.ir.assert_structural_equal(without_params(after), PlainFolded)
    assert list(get_params(after)) == ["w", "beta"]
    check_same(mod, after)
    tvm.ir.assert_structural_equal(folded(after), after)


def test_values_against_float64():
    mod = random_params(Plain)
    p = {k: v.numpy().astype(np.float64) for k, v in get_params(mod).items()}
    values = get_params(folded(mod))
    scale = p["gamma"] / np.sqrt(p["var"] + 1e-5)
    np.testing.assert_array_equal(
        values["w"].numpy(), (p["w"] * scale[:, None, None, None]).astype("float32")
    )
    np.testing.assert_array_equal(
        values["beta"].numpy(), (p["beta"] - p["mean"] * scale).astype("float32")
    )


class Everything(nn.Module):
    """Convolutions of one and two dimensions, transposed, grouped and not, linear, norm alone."""

    def __init__(self):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depth, self.norm2 = nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8)
        self.up, self.norm3 = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2), nn.BatchNorm2d(6)
        self.norm4 = nn.BatchNorm2d(6)
        self.line, self.norm5 = nn.Linear(6, 10), nn.BatchNorm1d(10)
        self.wave, self.norm6 = nn.Conv1d(1, 5, 3), nn.BatchNorm1d(5, affine=False)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)

    def forward(self, x):
        x = torch.relu(self.norm1(self.first(x)))
        x = self.norm4(torch.relu(self.norm3(self.up(self.norm2(self.depth(x))))))
        x = self.norm5(self.line(x.mean((2, 3))))
        return self.norm6(self.wave(x[:, None]))


def test_every_kind_as_pytorch_imports_it():
    torch.manual_seed(0)
    model, x = Everything().eval(), torch.randn(2, 3, 8, 8)
    mod = from_torch(model, x)
    after = folded(mod)
    assert not any("batch_norm" in name for name in op_names(after))
    assert list(get_params(after)) == [
        "first.weight", "first.bias", "depth.weight", "norm2.bias", "up.weight", "up.bias",
        "norm4.weight", "norm4.bias", "line.weight", "line.bias", "wave.weight", "wave.bias",
    ]  # fmt: skip
    with torch.no_grad():
        want = model(x).numpy()
    got = run(after, x.numpy())[0]
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@given(
    groups=st.sampled_from([1, 2, 4]),
    layouts=st.sampled_from([("NCHW", "OIHW"), ("NHWC", "OHWI"), ("NHWC", "HWIO")]),
    bias=st.sampled_from([None, "before", "after", "scalar"]),
    seed=st.integers(0, 99),
)
def test_any_layout_and_bias_has_the_values_of_the_formula(groups, layouts, bias, seed):
    """Structure and numbers without a build: ``w`` and the bias against the formula."""
    data_layout, kernel_layout = layouts
    sides = {"N": 1, "C": 8, "H": 5, "W": 5}
    kernel = {"O": 4, "I": 8 // groups, "H": 2, "W": 3}
    axis = data_layout.index("C")
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([sides[c] for c in data_layout], "float32"))
    w = relax.Var("w", relax.TensorType([kernel[c] for c in kernel_layout], "float32"))
    stats = [relax.Var(n, relax.TensorType((4,), "float32")) for n in ("g", "b", "m", "var")]
    along = [1, 1, 1, 1]
    along[axis] = 1 if bias == "scalar" else 4
    c = relax.Var("bias", relax.TensorType(along, "float32"))
    with builder.function("main", [x, w, *([c] if bias else []), *stats]):
        with builder.dataflow():
            y = builder.emit(
                relax.op.nn.conv2d(
                    x, w, groups=groups, data_layout=data_layout, kernel_layout=kernel_layout
                )
            )
            if bias:
                y = builder.emit(relax.op.add(c, y) if bias == "before" else relax.op.add(y, c))
            n = builder.emit(relax.op.nn.batch_norm(y, *stats, axis=axis, training=False))
            out = builder.emit_output(relax.TupleGetItem(n, 0))
        builder.emit_func_output(out)
    mod = random_params(builder.get(), seed=seed)
    after = folded(mod)
    old = {k: v.numpy().astype(np.float64) for k, v in get_params(mod).items()}
    new = {k: v.numpy() for k, v in get_params(after).items()}
    name = "bias" if bias else "b"
    assert list(new) == ["w", name]
    scale = old["g"] / np.sqrt(old["var"] + 1e-5)
    shape = [4 if letter == "O" else 1 for letter in kernel_layout]
    np.testing.assert_allclose(new["w"], old["w"] * scale.reshape(shape), rtol=1e-6)
    was = old["bias"].reshape(-1) if bias else 0
    want = old["b"] + (was - old["m"]) * scale
    np.testing.assert_allclose(new[name], want, rtol=1e-5, atol=1e-6)


@I.ir_module
class ReadTwice:
    @R.function
    def main(
        x: R.Tensor((2, 3, 6, 6), "float32"),
        w: R.Tensor((4, 3, 3, 3), "float32"),
        gamma: R.Tensor((4,), "float32"),
        beta: R.Tensor((4,), "float32"),
        mean: R.Tensor((4,), "float32"),
        var: R.Tensor((4,), "float32"),
    ) -> R.Tensor((2, 4, 4, 4), "float32"):
        with R.dataflow():
            y = R.nn.conv2d(x, w)
            n = R.nn.batch_norm(y, gamma, beta, mean, var, axis=1, training=False)
            out = R.add(n[0], y)
            R.output(out)
        return out


@I.ir_module
class Shared:
    """One convolution's weight read twice, one norm's gamma and beta read twice."""

    @R.function
    def main(
        x: R.Tensor((2, 4, 6, 6), "float32"),
        w: R.Tensor((4, 4, 3, 3), "float32"),
        gamma: R.Tensor((4,), "float32"),
        beta: R.Tensor((4,), "float32"),
        mean: R.Tensor((4,), "float32"),
        var: R.Tensor((4,), "float32"),
    ) -> R.Tensor((2, 4, 2, 2), "float32"):
        with R.dataflow():
            y = R.nn.conv2d(x, w)
            n = R.nn.batch_norm(y, gamma, beta, mean, var, axis=1, training=False)
            z = R.nn.conv2d(n[0], w)
            m = R.nn.batch_norm(z, gamma, beta, mean, var, axis=1, training=False)
            out = m[0]
            R.output(out)
        return out


@pytest.mark.parametrize("source", [ReadTwice, Shared])
def test_a_convolution_read_elsewhere_or_a_tied_weight_stays(source):
    mod = random_params(source)
    after = folded(mod)
    np.testing.assert_array_equal(get_params(after)["w"].numpy(), get_params(mod)["w"].numpy())
    assert "multiply" in op_names(after)
    assert "nn.batch_norm" not in op_names(after)
    check_same(mod, after)


def test_tied_statistics_become_constants():
    after = folded(random_params(Shared))
    assert list(get_params(after)) == ["w"]


@I.ir_module
class StatisticsRead:
    @R.function
    def main(
        x: R.Tensor((2, 4), "float32"),
        gamma: R.Tensor((4,), "float32"),
        beta: R.Tensor((4,), "float32"),
        mean: R.Tensor((4,), "float32"),
        var: R.Tensor((4,), "float32"),
    ) -> R.Tuple(R.Tensor((2, 4), "float32"), R.Tensor((4,), "float32")):
        with R.dataflow():
            n = R.nn.batch_norm(x, gamma, beta, mean, var, axis=1, training=True)
            out = (n[0], n[1])
            R.output(out)
        return out


def test_training_and_statistics_from_an_input_are_left_alone():
    mod = random_params(StatisticsRead)
    tvm.ir.assert_structural_equal(apply(FoldBatchNorm(), mod), mod)
    mod = random_params(Plain, inputs=5)
    tvm.ir.assert_structural_equal(apply(FoldBatchNorm(), mod), mod)


@pytest.mark.parametrize(("center", "scale"), [(False, True), (True, False), (False, False)])
def test_without_center_or_scale_beta_or_gamma_does_not_count(center, scale):
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 4), "float32"))
    names = ("gamma", "beta", "mean", "var")
    stats = [relax.Var(n, relax.TensorType((4,), "float32")) for n in names]
    with builder.function("main", [x, *stats]):
        with builder.dataflow():
            n = builder.emit(
                relax.op.nn.batch_norm(
                    x, *stats, axis=1, center=center, scale=scale, training=False
                )
            )
            out = builder.emit_output(relax.TupleGetItem(n, 0))
        builder.emit_func_output(out)
    mod = random_params(builder.get())
    after = folded(mod)
    p = {k: v.numpy() for k, v in get_params(mod).items()}
    (x_value,) = random_inputs(mod)
    want = (x_value - p["mean"]) / np.sqrt(p["var"] + 1e-5)
    want = want * (p["gamma"] if scale else 1) + (p["beta"] if center else 0)
    np.testing.assert_allclose(run(after, x_value)[0], want, rtol=1e-5, atol=1e-5)
    assert op_names(after) == ["multiply", "add"]


def test_a_weight_that_would_overflow_is_not_folded():
    mod = random_params(Plain)
    values = {k: v.numpy().copy() for k, v in get_params(mod).items()}
    values["w"][:] = 3e38
    values["gamma"][:] = 100
    after = folded(with_params(mod, values))
    assert "multiply" in op_names(after)
    np.testing.assert_array_equal(get_params(after)["w"].numpy(), values["w"])


@given(
    groups=st.sampled_from([1, 2, 3]),
    inside=st.integers(1, 3),
    outside=st.integers(1, 3),
    channel_axis=st.sampled_from([0, 1]),
    seed=st.integers(0, 99),
)
def test_scaled_channels_of_grouped_transposed_kernels(groups, inside, outside, channel_axis, seed):
    rng = np.random.default_rng(seed)
    shape = [groups * inside, outside] if channel_axis == 1 else [outside, groups * inside]
    weight = rng.standard_normal((*shape, 2))
    scale = rng.standard_normal(groups * outside)
    got = scale_channels(weight, scale, channel_axis, groups)
    for g in range(groups):
        for i in range(inside):
            for o in range(outside):
                at = (g * inside + i, o) if channel_axis == 1 else (o, g * inside + i)
                np.testing.assert_allclose(got[at], weight[at] * scale[g * outside + o])


def test_the_affine_form():
    scale, shift = affine_form(*[np.array([v]) for v in (2.0, 3.0, 4.0, 8.0)], epsilon=1.0)
    assert (scale[0], shift[0]) == (2 / 3, 3 - 8 / 3)
