"""Transposed convolutions as plain ones, and groups joined to whole vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from example_counts import COMPILED
from hypothesis import given
from hypothesis import strategies as st
from kernel_support import Case, build, check, compare, lowered, module, normal, reference
from tvm import relax

from burnish.passes.packed import merged_groups
from burnish.passes.transposed import Transposed

op = relax.op


@st.composite
def geometry(draw: st.DrawFn) -> dict:
    kernel = [draw(st.integers(1, 5)) for _ in range(2)]
    dilation = [draw(st.sampled_from([1, 1, 2])) for _ in range(2)]
    strides = [draw(st.integers(1, 3)) for _ in range(2)]
    padding, extra = [], []
    for axis in range(2):
        taps = dilation[axis] * (kernel[axis] - 1) + 1
        padding.append(draw(st.integers(0, taps - 1)))
        extra.append(draw(st.integers(0, strides[axis] - 1)))
    return {
        "stride": strides,
        "padding": padding,
        "output_padding": extra,
        "dilation": dilation,
        "kernel": kernel,
    }


def transposed(shape: dict, groups: int, each: int, out_each: int, size: list[int]) -> Case:
    def ours(x, w):
        y = op.nn.conv2d_transpose(
            x,
            w,
            strides=shape["stride"],
            padding=shape["padding"],
            output_padding=shape["output_padding"],
            dilation=shape["dilation"],
            groups=groups,
        )
        return op.nn.relu(y)

    def theirs(x, w):
        given = {k: v for k, v in shape.items() if k != "kernel"}
        return torch.relu(F.conv_transpose2d(x, w, groups=groups, **given))

    return Case(
        ours,
        theirs,
        {"x": normal(1, 2, groups * each, *size)},
        {"w": normal(2, groups * each, out_each, *shape["kernel"])},
    )


@COMPILED
@given(
    shape=geometry(),
    groups=st.sampled_from([1, 1, 2, 3]),
    each=st.sampled_from([1, 3, 16]),
    out_each=st.sampled_from([1, 3, 8, 17]),
    size=st.lists(st.integers(1, 7), min_size=2, max_size=2),
)
def test_a_transposed_convolution_of_any_geometry(shape, groups, each, out_each, size):
    extents = [
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(
            size,
            shape["stride"],
            shape["padding"],
            shape["dilation"],
            shape["kernel"],
            shape["output_padding"],
            strict=True,
        )
    ]
    if min(extents) >= 1:
        check(transposed(shape, groups, each, out_each, size))


def test_no_tap_meets_a_zero_between_inputs():
    shape = {
        "stride": [2, 2],
        "padding": [1, 1],
        "output_padding": [0, 0],
        "dilation": [1, 1],
        "kernel": [4, 4],
    }
    mod = lowered(module(transposed(shape, 1, 16, 16, [8, 8])))
    (packed,) = (v for v in mod.attrs["params"].values())
    # 4 phases of 2 x 2 taps: as many numbers as the kernel has.
    assert np.prod(packed.shape) == 16 * 16 * 4 * 4


def test_a_transposed_convolution_with_an_open_size():
    def inputs(b: int, h: int, w: int) -> dict[str, np.ndarray]:
        return {"x": normal(h, b, 5, h, w)}

    case = Case(
        lambda x, w: op.nn.conv2d_transpose(x, w, strides=2, padding=1),
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1),
        inputs(1, 4, 6),
        {"w": normal(2, 5, 7, 4, 4)},
        {"x": ["b", 5, "h", "w"]},
    )
    built = build(case)
    for given_inputs in (case.inputs, inputs(2, 1, 9), inputs(3, 8, 3)):
        compare(built(*given_inputs.values()), reference(case, given_inputs), 2e-5)


def test_one_dimension():
    check(
        Case(
            lambda x, w: op.nn.conv1d_transpose(x, w, strides=3, padding=2, output_padding=1),
            lambda x, w: F.conv_transpose1d(x, w, stride=3, padding=2, output_padding=1),
            {"x": normal(1, 2, 5, 11)},
            {"w": normal(2, 5, 18, 5)},
        )
    )


@pytest.mark.parametrize(("groups", "each", "lanes"), [(32, 4, 16), (4, 15, 16), (6, 8, 16)])
def test_joined_groups_hold_each_weight_once_and_zeros(groups, each, lanes):
    w = normal(0, groups * each, 3, 2, 5)
    merged, left = merged_groups(w, groups, lanes)
    assert (each * groups // left) % lanes == 0 or left == 1
    x = normal(1, 1, groups * 5, 6, 6)

    def convolved(w: np.ndarray, groups: int) -> torch.Tensor:
        kernel = torch.from_numpy(np.ascontiguousarray(w.transpose(0, 3, 1, 2)))
        return F.conv2d(torch.from_numpy(x), kernel, groups=groups)

    torch.testing.assert_close(convolved(merged, left), convolved(w, groups))
    assert np.count_nonzero(merged) == np.count_nonzero(w)


def test_too_many_groups_stay_apart():
    assert merged_groups(normal(0, 33, 1, 1, 1), 33, 16) is None


def test_padding_that_cuts_whole_inputs_off_is_declined():
    class Attributes:
        strides, padding, output_padding = [1, 1], [3, 0, 0, 0], [0, 0]
        dilation, groups = [1, 1], 1

    assert Transposed.of(Attributes, (2, 2)) is None
