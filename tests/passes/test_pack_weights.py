"""Weights packed for kernels: names, sizes, and what is computed with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm_ffi
from example_counts import COMPILED
from hypothesis import given
from hypothesis import strategies as st
from kernel_support import Built, Case, compare, lowered, module, normal, reference
from tvm import relax, tirx

from burnish.passes import packed
from burnish.passes.configs import QuantizeConfig
from burnish.passes.pack_weights import PackWeights
from burnish.passes.params import get_params, num_inputs, param_bytes
from burnish.passes.qparams import pack_bits
from burnish.passes.quantize import QuantizeWeights, dequantized_weights
from burnish.targets.cpu.tiling import choose_width
from burnish.targets.target import CpuTarget
from relax_support import apply, op_names

op = relax.op
CPU = CpuTarget(lanes=16, registers=32)


def linear(rows: int = 5, k: int = 24, n: int = 40, seed: int = 0) -> Case:
    return Case(
        lambda x, w, b: op.nn.relu(op.add(op.matmul(x, op.permute_dims(w)), b)),
        lambda x, w, b: torch.relu(x @ w.T + b),
        {"x": normal(seed, rows, k)},
        {"a.weight": normal(seed + 1, n, k), "a.bias": normal(seed + 2, n)},
    )


def convolution(depth: int, out: int, kernel: int, groups: int = 1, seed: int = 0) -> Case:
    return Case(
        lambda x, w: op.nn.conv2d(x, w, padding=1, groups=groups),
        lambda x, w: F.conv2d(x, w, padding=1, groups=groups),
        {"x": normal(seed, 1, depth, 7, 6)},
        {"a.weight": normal(seed + 1, out, depth // groups, kernel, kernel)},
    )


def tied(rows: int = 30, k: int = 16) -> Case:
    """An embedding that is the head too."""
    return Case(
        lambda i, t, w: op.matmul(op.matmul(op.take(t, i, 0, mode="clip"), w), op.permute_dims(t)),
        lambda i, t, w: (t[i] @ w) @ t.T,
        {"i": np.array([[0, rows - 1, 3], [7, 7, 1]])},
        {"embed.weight": normal(1, rows, k), "mix": normal(2, k, k)},
    )


def configs(sizes: tuple[int, ...] = (4, 8)) -> st.SearchStrategy[QuantizeConfig]:
    grains = [("tensor", None), ("channel", None), *(("group", size) for size in sizes)]
    return st.builds(
        lambda bits, symmetric, grain: QuantizeConfig(
            bits=bits, symmetric=symmetric, granularity=grain[0], group_size=grain[1]
        ),
        st.integers(2, 8),
        st.booleans(),
        st.sampled_from(grains),
    )


def check_quantized(case: Case, config: QuantizeConfig) -> None:
    """The kernels compute with exactly the dequantized weights."""
    quantized = QuantizeWeights(config)(module(case))
    plain = {**case.weights, **dequantized_weights(quantized)}
    assert dequantized_weights(quantized)
    got = Built(lowered(quantized))(*case.inputs.values())
    compare(got, reference(dataclasses.replace(case, weights=plain)), case.tolerance)


# -- structure -----------------------------------------------------------------------------------


def test_a_weight_keeps_its_name_and_the_rest_is_left_alone():
    mod = module(linear())
    after = apply(PackWeights(CPU), mod)
    assert sorted(get_params(after)) == ["a.bias", "a.weight"]
    assert num_inputs(after) == 1
    assert "matmul" not in op_names(after)
    assert op_names(after).count("call_tir") == 1
    kernels = [f for f in after.functions.values() if isinstance(f, tirx.PrimFunc)]
    assert len(kernels) == 1
    np.testing.assert_array_equal(
        get_params(after)["a.bias"].numpy(), get_params(mod)["a.bias"].numpy()
    )
    width = choose_width(5, 40, CPU)
    assert tuple(get_params(after)["a.weight"].shape) == (-(-40 // width), 24, width)


def test_packing_again_changes_nothing():
    for case in (linear(), tied(), convolution(8, 16, 3)):
        once = PackWeights(CPU)(module(case))
        twice = PackWeights(CPU)(once)
        assert tvm_ffi.structural_equal(once["main"], twice["main"])
        assert list(get_params(once)) == list(get_params(twice))


def test_a_tied_embedding_is_stored_once():
    case = tied()
    mod = module(case)
    after = apply(PackWeights(CPU), mod)
    assert sorted(get_params(after)) == ["embed.weight", "mix"]
    assert get_params(after)["embed.weight"].numpy().size == 32 * 16
    got = Built(lowered(mod))(*case.inputs.values())
    compare(got, reference(case), 2e-5)


def test_a_weight_that_is_also_read_plainly_keeps_both_forms():
    case = Case(
        lambda x, w: [op.matmul(x, w), op.sum(w, 0)],
        lambda x, w: [x @ w, w.sum(0)],
        {"x": normal(0, 5, 8)},
        {"w": normal(1, 8, 12)},
    )
    after = apply(PackWeights(CPU), module(case))
    assert sorted(get_params(after)) == ["w", "w~packed"]
    compare(Built(lowered(module(case)))(case.inputs["x"]), reference(case), 2e-5)


def test_one_weight_read_two_ways_is_packed_twice():
    case = Case(
        lambda x, w: op.matmul(op.matmul(x, w), op.permute_dims(w)),
        lambda x, w: x @ w @ w.T,
        {"x": normal(0, 5, 8)},
        {"w": normal(1, 8, 12)},
    )
    after = apply(PackWeights(CPU), module(case))
    assert len(get_params(after)) == 2
    assert all(name.startswith("w") for name in get_params(after))
    compare(Built(lowered(module(case)))(case.inputs["x"]), reference(case), 2e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda x, w: op.matmul(op.astype(x, "float16"), w),
        lambda x, w: op.matmul(op.astype(x, "float64"), op.astype(w, "float64")),
        lambda x, w: op.matmul(op.expand_dims(x, 0), op.expand_dims(op.astype(w, "float32"), 0)),
    ],
)
def test_what_does_not_fit_is_left_alone(make):
    weight = normal(1, 8, 8, dtype="float16")
    mod = module(Case(make, None, {"x": normal(0, 5, 8)}, {"w": weight}))
    after = apply(PackWeights(CPU), mod)
    assert "matmul" in op_names(after)
    np.testing.assert_array_equal(get_params(after)["w"].numpy(), weight)


@pytest.mark.parametrize(("groups", "joined"), [(3, True), (33, False)])
def test_groups_whose_channels_do_not_fill_a_block_are_joined_if_they_are_few(groups, joined):
    case = convolution(groups * 2, groups * 3, 3, groups=groups)
    made = lambda x, w: op.nn.conv2d(  # noqa: E731
        op.permute_dims(x, [0, 2, 3, 1]),
        op.permute_dims(w, [0, 2, 3, 1]),
        padding=1,
        groups=groups,
        data_layout="NHWC",
        kernel_layout="OHWI",
    )
    after = apply(PackWeights(CPU), module(dataclasses.replace(case, make=made)))
    assert ("nn.conv2d" not in op_names(after)) == joined


def test_quantized_weights_stay_small():
    mod = module(linear(5, 256, 64))
    codes = QuantizeWeights(QuantizeConfig(bits=4))(mod)
    after = apply(PackWeights(CPU), codes)
    assert param_bytes(after) <= param_bytes(codes) * 1.01
    assert param_bytes(after) < param_bytes(mod) / 6
    assert {"a.weight", "a.weight.scale", "a.bias"} <= set(get_params(after))


# -- numbers -------------------------------------------------------------------------------------


@COMPILED
@given(
    config=configs((5, 35)),
    rows=st.sampled_from([1, 2, 5, 40]),
    k=st.sampled_from([35, 70]),
    n=st.integers(1, 70),
)
def test_a_quantized_gemm(config, rows, k, n):
    """Also where the last storage word holds codes past the end of the row."""
    check_quantized(linear(rows, k, n, seed=n), config)


@COMPILED
@given(
    config=configs((2, 4)),
    shape=st.sampled_from([(8, 24, 3, 1), (4, 7, 1, 1), (8, 32, 3, 2), (12, 12, 2, 1)]),
)
def test_a_quantized_convolution(config, shape):
    check_quantized(convolution(*shape), config)


@COMPILED
@given(bits=st.integers(2, 8), symmetric=st.booleans(), channels=st.sampled_from([3, 16, 33]))
def test_a_quantized_depthwise_convolution(bits, symmetric, channels):
    config = QuantizeConfig(bits=bits, symmetric=symmetric)
    check_quantized(convolution(channels, channels, 3, groups=channels), config)


@COMPILED
@given(config=configs((4, 16)))
def test_a_quantized_tied_embedding(config):
    check_quantized(tied(), config)


def test_a_look_up_counts_negative_rows_from_the_end_and_stays_inside():
    case = tied()
    table = get_params(lowered(module(case)))["embed.weight"]
    assert table.numpy().ndim == 3
    indices = np.array([[-1, -30, 29], [0, 29, 99]])
    got = Built(lowered(module(case)))(indices)
    inside = np.array([[29, 0, 29], [0, 29, 29]])
    compare(got, reference(case, {"i": inside}), 2e-5)


@given(
    n=st.integers(1, 70),
    k=st.integers(1, 9),
    width=st.sampled_from([1, 4, 16, 48]),
    outer=st.sampled_from([(), (3,), (2, 3)]),
)
def test_dense_packing_puts_a_block_of_channels_innermost(n, k, width, outer):
    weight = normal(n, n, *outer, k)
    made = packed.pack_dense(weight, width).arrays[""]
    blocks = -(-n // width)
    assert made.shape == (blocks, *outer, k, width)
    unpacked = np.moveaxis(made, -1, 1).reshape(blocks * width, *outer, k)
    np.testing.assert_array_equal(unpacked[:n], weight)
    assert not unpacked[n:].any()


@pytest.mark.parametrize("bits", range(2, 8))
def test_bits_pack_lowest_first(bits):
    codes = np.arange(7, dtype=np.uint8).reshape(1, 7) % 2**bits
    per = 32 // bits
    words = pack_bits(codes, bits)
    assert words.shape == (1, -(-7 // per))
    for place, code in enumerate(codes[0]):
        assert (int(words[0, place // per]) >> (bits * (place % per))) & (2**bits - 1) == code
