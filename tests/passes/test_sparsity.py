import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from burnish.passes.sparsity import (
    MaskReport,
    keep_by_sparsity,
    keep_by_threshold,
    magnitude_prune,
    mask_row,
    removed_count,
)

TENSORS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=7),
    # Few distinct values, so that ties are common.
    elements=st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0]),
)


@given(weight=TENSORS, sparsity=st.floats(0, 1))
def test_sparsity_is_met_exactly_by_the_least_magnitudes(weight, sparsity):
    keep = keep_by_sparsity({"w": weight}, sparsity)["w"]
    assert keep.shape == weight.shape
    assert np.count_nonzero(~keep) == removed_count(sparsity, weight.size)
    if keep.any() and not keep.all():
        assert np.abs(weight[keep]).min() >= np.abs(weight[~keep]).max()


@given(first=TENSORS, second=TENSORS, sparsity=st.floats(0, 1))
def test_over_the_model_the_counts_are_of_all_tensors(first, second, sparsity):
    keep = keep_by_sparsity({"a": first, "b": second}, sparsity)
    gone = sum(np.count_nonzero(~mask) for mask in keep.values())
    assert gone == removed_count(sparsity, first.size + second.size)
    kept = np.concatenate([np.abs(w[keep[n]]) for n, w in (("a", first), ("b", second))])
    lost = np.concatenate([np.abs(w[~keep[n]]) for n, w in (("a", first), ("b", second))])
    if kept.size and lost.size:
        assert kept.min() >= lost.max()


@given(weight=TENSORS, theta=st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]))
def test_threshold_keeps_what_is_strictly_greater(weight, theta):
    out = magnitude_prune({"w": weight}, threshold=theta)["w"]
    np.testing.assert_array_equal(out, weight * (np.abs(weight) > theta))
    assert out.dtype == weight.dtype
    np.testing.assert_array_equal(out != 0, keep_by_threshold(weight, theta))


def test_ties_go_in_order():
    keep = keep_by_sparsity({"w": np.ones((2, 3), np.float32)}, 0.5)["w"]
    assert keep.tolist() == [[False, False, False], [True, True, True]]


@pytest.mark.parametrize(
    ("sparsity", "size", "count"), [(0, 5, 0), (1, 5, 5), (0.5, 5, 3), (0.3, 5, 2), (0.7, 10, 7)]
)
def test_the_count_rounds_half_up(sparsity, size, count):
    assert removed_count(sparsity, size) == count


def test_no_sparsity_changes_nothing_and_full_sparsity_leaves_nothing():
    weight = np.array([[-0.0, 1.0], [np.inf, -np.inf]], np.float32)
    np.testing.assert_array_equal(magnitude_prune({"w": weight}, sparsity=0)["w"], weight)
    assert not magnitude_prune({"w": weight}, sparsity=1)["w"].any()
    assert magnitude_prune({}, sparsity=0.5, scope="model") == {}


def test_nan_is_refused_by_name():
    with pytest.raises(ValueError, match=r"weight 'bad' \[2\] holds NaN"):
        magnitude_prune({"bad": np.array([1, np.nan])}, sparsity=0.5)


def test_neither_sparsity_nor_threshold_is_refused():
    with pytest.raises(ValueError, match="either sparsity or threshold"):
        magnitude_prune({"w": np.ones(2)})


def test_a_row_tells_zeros_and_theta():
    before = np.array([[0.0, 1.0], [2.0, -3.0]], np.float32)
    row = mask_row("w", before, np.array([[0, 0], [0, -3]], np.float32))
    assert (row.sparsity_before, row.sparsity_after, row.theta, row.zeros) == (0.25, 0.75, 2.0, 3)
    report = MaskReport((row, mask_row("v", np.ones(4), np.ones(4))))
    assert report.sparsity == 3 / 8
    assert report.to_dict()["label"] == "size only"
    assert report.to_dict()["rows"][0]["shape"] == [2, 2]
