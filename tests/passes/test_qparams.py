import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from burnish.passes import qparams
from burnish.passes.qparams import pack_bits, quantize, scale_shape, unpack_bits

BITS = st.integers(2, 8)
SIDES = st.sampled_from([1, 2, 3, 5, 6, 7, 12])


@st.composite
def weights_and_scales(draw):
    """A weight of 2 to 4 axes (odd sides, wild magnitudes) and a shape of scales for it."""
    shape = tuple(draw(st.lists(SIDES, min_size=2, max_size=4)))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    limit = {np.float16: 60000.0, np.float32: 2.0**100, np.float64: 2.0**300}[dtype]
    width = np.dtype(dtype).itemsize * 8
    magnitude = draw(st.sampled_from([1.0, limit, float(np.finfo(dtype).tiny)]))
    unit = draw(hnp.arrays(dtype, shape, elements=st.floats(-1, 1, width=width)))
    weight = (unit.astype(np.float64) * magnitude).astype(dtype)
    granularity = draw(st.sampled_from(["tensor", "channel", "group"]))
    axis = draw(st.integers(0, len(shape) - 1))
    reduced = tuple(sorted({axis, *draw(st.sets(st.integers(0, len(shape) - 1)))}))
    size = draw(st.sampled_from([n for n in range(1, shape[axis] + 1) if shape[axis] % n == 0]))
    return weight, scale_shape(shape, reduced, granularity, axis, size)


@given(case=weights_and_scales(), bits=BITS, symmetric=st.booleans())
def test_the_error_is_at_most_half_a_step(case, bits, symmetric):
    weight, scales = case
    q = quantize(weight, bits, symmetric=symmetric, scales=scales)
    assert q.codes.shape == weight.shape
    assert q.scale.shape == q.zero_point.shape == scales
    exact = weight.astype(np.float64)
    step = q.per_weight(q.scale).astype(np.float64)
    # The scale is rounded to its type: the end of the range may lie that much outside.
    slack = 2.0**bits * np.finfo(q.scale.dtype).eps
    assert (np.abs(exact - q.dequantize()) <= step * (0.5 + slack)).all()
    assert (q.dequantize()[exact == 0] == 0).all()
    high = 2**bits - 1
    if symmetric:
        assert q.codes.dtype == (np.int8 if bits == 8 else np.uint8)
        assert np.abs(q.centred().astype(int)).max() <= high // 2
    else:
        assert q.codes.dtype == np.uint8
        assert q.codes.max() <= high
        assert q.zero_point.max() <= high


@given(case=weights_and_scales(), bits=BITS)
def test_quantizing_what_was_dequantized_changes_no_code(case, bits):
    weight, scales = case
    q = quantize(weight.astype(np.float64), bits, symmetric=True, scales=scales)
    again = quantize(q.dequantize(), bits, symmetric=True, scales=scales)
    np.testing.assert_array_equal(again.codes, q.codes)


@given(
    rows=st.integers(0, 3),
    count=st.integers(0, 70),
    bits=BITS,
    seed=st.integers(0, 2**16),
)
def test_unpack_inverts_pack(rows, count, bits, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, (rows, count), np.uint8)
    words = pack_bits(codes, bits)
    assert words.dtype == np.uint32
    assert words.shape == (rows, -(-count // (32 // bits)))
    np.testing.assert_array_equal(unpack_bits(words, bits, count), codes)


@given(
    shape=st.lists(SIDES, min_size=1, max_size=4),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_rows_invert(shape, seed, data):
    reduced = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1)))))
    codes = np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)
    rows = qparams.to_rows(codes, reduced)
    assert rows.shape[1] == int(np.prod([shape[a] for a in reduced], dtype=int))
    np.testing.assert_array_equal(qparams.from_rows(rows, tuple(shape), reduced), codes)


def test_words_hold_the_stated_number_of_codes():
    assert [qparams.codes_per_word(b) for b in range(2, 9)] == [16, 10, 8, 6, 5, 4, 4]


def test_the_first_code_is_in_the_lowest_bits():
    assert pack_bits(np.array([1, 2, 3], np.uint8), 4).tolist() == [0x321]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_constants_and_zeros(bits, symmetric):
    weight = np.array([[0.0, 0.0], [0.7, 0.7], [-0.3, -0.3]], np.float32)
    q = quantize(weight, bits, symmetric=symmetric, scales=(3, 1))
    np.testing.assert_allclose(q.dequantize(), weight, rtol=1e-6)
    assert q.scale[0, 0] == 1
    assert (q.dequantize()[0] == 0).all()


def test_denormal_weights_get_the_least_normal_scale():
    weight = np.full((1, 4), 1e-44, np.float32)
    q = quantize(weight, 8, symmetric=True, scales=(1, 1))
    assert q.scale[0, 0] == np.finfo(np.float32).tiny
    assert np.abs(q.dequantize() - weight).max() <= q.scale[0, 0] / 2


def test_the_largest_floats_stay_finite():
    weight = np.array([[np.finfo(np.float32).max, -np.finfo(np.float32).max]], np.float32)
    for symmetric in (True, False):
        q = quantize(weight, 2, symmetric=symmetric, scales=(1, 1))
        assert np.isfinite(q.scale).all()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_infinities_and_nan_are_refused_by_name(bad):
    with pytest.raises(ValueError, match=r"weight 'head' \[1, 2\] holds infinities or NaN"):
        quantize(np.array([[1.0, bad]]), 8, symmetric=True, scales=(1, 1), name="head")


def test_refusals():
    with pytest.raises(ValueError, match="from 2 to 8, got 9"):
        quantize(np.ones((1, 1)), 9, symmetric=True, scales=(1, 1))
    with pytest.raises(ValueError, match="3 scales do not divide axis 1 of"):
        quantize(np.ones((1, 4)), 8, symmetric=True, scales=(1, 3))
    with pytest.raises(ValueError, match="codes from 0 to 4 do not fit in 2 unsigned bits"):
        pack_bits(np.array([0, 4]), 2)
    with pytest.raises(ValueError, match=r"9 codes of 4 bits take 2 words a row, got \[3\]"):
        unpack_bits(np.zeros(3, np.uint32), 4, 9)
    with pytest.raises(ValueError, match="needs a group axis and a group size"):
        scale_shape((4, 4), (1,), "group")


def test_a_group_that_does_not_divide_names_those_that_do():
    with pytest.raises(ValueError, match=r"128 does not divide axis 1 of \[9, 576\], .*: .*144"):
        scale_shape((9, 576), (1,), "group", 1, 128)


@pytest.mark.parametrize(
    ("granularity", "shape", "reduced", "axis", "scales"),
    [
        ("tensor", (8, 12), (1,), 1, (1, 1)),
        ("channel", (8, 12), (1,), 1, (8, 1)),
        ("channel", (12, 8), (0,), 0, (1, 8)),
        ("group", (8, 12), (1,), 1, (8, 3)),
        ("channel", (8, 12, 3, 3), (1, 2, 3), 1, (8, 1, 1, 1)),
        ("group", (8, 12, 3, 3), (1, 2, 3), 1, (8, 3, 1, 1)),
        ("channel", (2, 12, 8), (1,), 1, (2, 1, 8)),
    ],
)
def test_scale_shapes(granularity, shape, reduced, axis, scales):
    assert scale_shape(shape, reduced, granularity, axis, 4) == scales
