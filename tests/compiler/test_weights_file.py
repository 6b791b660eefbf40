"""Weights files: what safetensors writes and reads, without its copies."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from burnish.compiler.weights_file import DTYPES, arrays_in, parts

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
NAMES = st.text(max_size=8).filter(lambda name: name != "__metadata__")
PLAIN = sorted(set(DTYPES) - {"BF16"})


@st.composite
def weights(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    found = {}
    for name in draw(st.lists(NAMES, max_size=5, unique=True)):
        dtype, shape = DTYPES[draw(st.sampled_from(PLAIN))], draw(SHAPES)
        array = rng.integers(0, 2, (*shape, dtype.itemsize), dtype=np.uint8)
        found[name] = array.reshape(-1).view(dtype).reshape(shape)
    return found


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert (array.dtype, array.shape) == (theirs[name].dtype, theirs[name].shape)
        np.testing.assert_array_equal(array, theirs[name])


@given(weights())
def test_safetensors_reads_what_is_written(arrays):
    same(safetensors.numpy.load(b"".join(parts(arrays))), arrays)


@given(weights())
def test_what_safetensors_writes_is_read(arrays):
    data = safetensors.numpy.save(arrays)
    same(arrays_in(memoryview(data)), arrays)


def test_strided_arrays_and_bfloat16():
    wide = np.arange(24.0, dtype="float32").reshape(4, 6)
    arrays = {"t": wide.T, "s": wide[::2, ::3], "b": wide.astype(ml_dtypes.bfloat16)}
    same(arrays_in(memoryview(b"".join(parts(arrays)))), arrays)


@given(weights(), st.data())
def test_a_cut_file_is_refused(arrays, data):
    whole = b"".join(parts(arrays))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match=r"weight|header"):
        arrays_in(memoryview(whole[:cut]))


def test_a_dtype_that_the_format_lacks_is_named():
    with pytest.raises(ValueError, match=r"the weight 'z' is complex64, which safetensors"):
        list(parts({"z": np.zeros(2, np.complex64)}))
