"""Weights in two bytes: which, how they are rounded, and what reads them."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm_ffi
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from kernel_support import Built, Case, compare, lowered, module, normal, reference
from tvm import relax

from burnish.passes.fold_weights import FoldWeights
from burnish.passes.half import DTYPES, narrowed, pack_pairs
from burnish.passes.narrow import NarrowWeights, narrowable
from burnish.passes.pack_weights import PackWeights
from burnish.passes.params import get_params, param_bytes, with_params
from burnish.passes.weight_views import weight_views
from burnish.targets.cpu.tiling import choose_width
from burnish.targets.target import host
from relax_support import apply, op_names

op = relax.op
LANES = 16
TARGET = replace(host(), lanes=LANES)
PRECISION = {"bfloat16": "bf16", "float16": "fp16"}


def linear(rows: int = 5, k: int = 24, n: int = 40) -> Case:
    return Case(
        lambda x, w, b: op.add(op.matmul(x, op.permute_dims(w)), b),
        lambda x, w, b: x @ w.T + b,
        {"x": normal(0, rows, k)},
        {"a.weight": normal(1, n, k), "a.bias": normal(2, n)},
    )


def embedded() -> Case:
    return Case(
        lambda i, t, w: op.matmul(op.take(t, i, 0, mode="clip"), w),
        lambda i, t, w: t[i] @ w,
        {"i": np.array([[0, 29, 3], [7, 7, 1]])},
        {"embed.weight": normal(1, 30, 16), "mix": normal(2, 16, 16)},
    )


def tied() -> Case:
    return Case(
        lambda i, t: op.matmul(op.take(t, i, 0, mode="clip"), op.permute_dims(t)),
        lambda i, t: t[i] @ t.T,
        {"i": np.array([[0, 29, 3], [7, 7, 1]])},
        {"embed.weight": normal(1, 30, 16)},
    )


def convolutions() -> Case:
    """Dense, depthwise and one-dimensional kernels."""
    return Case(
        lambda x, y, w, d, v: [
            op.nn.conv2d(op.nn.conv2d(x, w, padding=1), d, groups=12),
            op.nn.conv1d(y, v),
        ],
        lambda x, y, w, d, v: [F.conv2d(F.conv2d(x, w, padding=1), d, groups=12), F.conv1d(y, v)],
        {"x": normal(0, 1, 5, 6, 7), "y": normal(3, 1, 5, 9)},
        {
            "full": normal(1, 12, 5, 3, 3),
            "deep": normal(2, 12, 1, 3, 3),
            "line": normal(4, 8, 5, 3),
        },
    )


CASES = {"linear": linear, "embedded": embedded, "tied": tied, "convolutions": convolutions}


def rounded(case: Case, dtype: str, names: set[str]) -> Case:
    """The case with the weights that the pass stores as they will be read."""
    return replace(
        case,
        weights={
            k: narrowed(w, dtype, k).astype("float32") if k in names else w
            for k, w in case.weights.items()
        },
    )


# -- which weights -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "names"),
    [
        (linear(), {"a.weight"}),
        (embedded(), {"embed.weight", "mix"}),
        (tied(), {"embed.weight"}),
        (convolutions(), {"full", "line"}),
    ],
    ids=list(CASES),
)
def test_weights_of_contractions_and_look_ups_are_chosen(case, names):
    mod = module(case)
    assert narrowable(mod, LANES) == names
    after = apply(NarrowWeights("bfloat16", LANES), mod)
    assert list(get_params(after)) == list(get_params(mod))
    for name, value in get_params(after).items():
        assert str(value.dtype) == ("bfloat16" if name in names else "float32")
    saved = sum(case.weights[name].nbytes for name in names)
    assert param_bytes(after) == param_bytes(mod) - saved // 2


@pytest.mark.parametrize(
    "make",
    [
        lambda x, w: [op.matmul(x, w), op.sum(w, 0)],
        lambda x, w: op.matmul(x, op.add(w, w)),
        lambda x, w: [op.matmul(x, w), op.take(w, relax.const([0, 1]), 1)],
        lambda x, w: op.take(op.permute_dims(w), relax.const([0, 1]), 0),
    ],
    ids=["read plainly too", "computed with", "columns looked up", "rows of its transpose"],
)
def test_a_weight_that_anything_else_reads_is_left_alone(make):
    case = Case(make, lambda x, w: x, {"x": normal(0, 8, 8)}, {"w": normal(1, 8, 8)})
    mod = module(case)
    assert narrowable(mod, LANES) == set()
    assert NarrowWeights("float16", LANES)(mod).same_as(mod)


def test_grouped_kernels_are_chosen_where_they_can_be_packed():
    def grouped(groups: int, each: int) -> set[str]:
        case = Case(
            lambda x, w: op.nn.conv2d(x, w, groups=groups),
            lambda x, w: x,
            {"x": normal(0, 1, groups * 2, 5, 5)},
            {"w": normal(1, groups * each, 2, 1, 1)},
        )
        return narrowable(module(case), LANES)

    assert grouped(2, 32) == {"w"}
    assert grouped(8, 2) == {"w"}
    assert grouped(34, 3) == set()


# -- the rewriting -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_narrowing_again_changes_nothing(name):
    once = apply(NarrowWeights("bfloat16", LANES), module(CASES[name]()))
    assert NarrowWeights("bfloat16", LANES)(once).same_as(once)


def test_each_reader_widens_the_weight_it_reads():
    after = apply(NarrowWeights("float16", LANES), module(tied()))
    assert op_names(after).count("astype") == 2
    views = [v for v in weight_views(after).values() if v.widened_to is not None]
    assert {(v.name, v.stored, v.dtype) for v in views} == {("embed.weight", "float16", "float32")}
    assert apply(FoldWeights(), after).same_as(after)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_kernels_read_the_stored_numbers(name, dtype):
    """Without dot instructions: weights are what was stored, activations as they are."""
    case = CASES[name]()
    mod = module(case)
    narrow = NarrowWeights(dtype, LANES)(mod)
    names = narrowable(mod, LANES)
    fused = lowered(narrow)
    got = Built(fused)(*case.inputs.values())
    compare(got, reference(rounded(case, dtype, names)), 2e-5)
    stored = {k: str(v.dtype) for k, v in get_params(fused).items()}
    assert {k for k, kind in stored.items() if kind == dtype} == names
    assert sorted(stored) == sorted(case.weights)


def test_dots_multiply_by_pairs_and_storage_does_not():
    narrow = NarrowWeights("bfloat16", LANES)(module(linear(k=25)))
    pairs = apply(PackWeights(TARGET, dots=True), narrow)
    plain = apply(PackWeights(TARGET), narrow)
    width = choose_width(5, 40, TARGET)
    blocks = -(-40 // width)
    assert tuple(get_params(pairs)["a.weight"].shape) == (blocks, 13, 2 * width)
    assert tuple(get_params(plain)["a.weight"].shape) == (blocks, 25, width)
    assert "astype" in op_names(pairs)
    assert "astype" not in op_names(plain)
    again = PackWeights(TARGET, dots=True)(pairs)
    assert tvm_ffi.structural_equal(again["main"], pairs["main"])


def test_activations_are_rounded_once_for_all_their_readers():
    case = Case(
        lambda x, a, b: [op.matmul(x, a), op.matmul(x, b)],
        lambda x, a, b: [x @ a, x @ b],
        {"x": normal(0, 5, 8)},
        {"a": normal(1, 8, 16), "b": normal(2, 8, 16)},
    )
    narrow = NarrowWeights("bfloat16", LANES)(module(case))
    assert op_names(PackWeights(TARGET, dots=True)(narrow)).count("astype") == 1


# -- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@given(weight=arrays.arrays("float32", (3, 4), elements=st.floats(-60000, 60000, width=32)))
def test_numbers_are_rounded_to_nearest(dtype, weight):
    small = narrowed(weight, dtype, "w")
    assert small.dtype == DTYPES[dtype]
    info = ml_dtypes.finfo(DTYPES[dtype])
    step = np.maximum(np.abs(weight) * float(info.eps), float(info.smallest_subnormal)) / 2
    assert (np.abs(weight - small.astype("float32")) <= step).all()


def test_a_number_out_of_range_names_its_weight():
    case = linear()
    weight = case.weights["a.weight"].copy()
    weight[3, 2] = -70000
    mod = with_params(module(case), {**case.weights, "a.weight": weight})
    message = (
        r"weight 'a.weight' \[40, 24\] holds 70000, which float16 cannot: its largest number is "
        r'65504; scale the weight down, or keep precision="fp32"'
    )
    with pytest.raises(ValueError, match=message):
        NarrowWeights("float16", LANES)(mod)
    assert get_params(NarrowWeights("bfloat16", LANES)(mod))


def test_infinities_and_nan_are_kept():
    weight = np.array([[np.inf, -np.inf], [np.nan, 1]], "float32")
    for dtype in DTYPES:
        np.testing.assert_array_equal(narrowed(weight, dtype, "w").astype("float32"), weight)


def test_an_unknown_type_is_an_error():
    with pytest.raises(ValueError, match="dtype must be one of float16, bfloat16, got 'int8'"):
        NarrowWeights("int8", LANES)


@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([16, 32]))
def test_pairs_hold_neighbours_and_zeros(channels, depth, width):
    weight = np.arange(1, channels * depth + 1, dtype="float32").reshape(channels, depth)
    weight = (weight % 251).astype(ml_dtypes.bfloat16)
    stored = pack_pairs(weight, width).arrays[""]
    blocks, pairs = -(-channels // width), -(-depth // 2)
    assert stored.shape == (blocks, pairs, 2 * width)
    seen = stored.reshape(blocks, pairs, width, 2).transpose(0, 2, 1, 3)
    seen = seen.reshape(blocks * width, pairs * 2)
    np.testing.assert_array_equal(seen[:channels, :depth], weight)
    assert not seen[channels:].any()
    assert not seen[:, depth:].any()


def test_torch_says_the_same():
    weight = normal(5, 7, 9) * 100
    want = torch.from_numpy(weight).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(narrowed(weight, "bfloat16", "w").astype("float32"), want)
