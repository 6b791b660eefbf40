"""Convolutions by cuDNN, whose place a stand-in takes: it computes as NVIDIA's manual says."""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from hypothesis import given
from hypothesis import strategies as st
from nvidia_support import build_function, build_stub

from burnish.targets.cuda.dnn import DTYPES, Convolution, is_key

TOLERANCE = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cudnn")
    path = build_stub(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BURNISH_CUDNN", str(path))
        patch.setenv("BURNISH_CUDA_DRIVER", str(path))
        module = tvm_ffi.load_module(str(build_function(Convolution, folder)))
        counts = ctypes.CDLL(str(path))
        counts.stub_launches.restype = counts.stub_heuristics.restype = ctypes.c_int64
        yield module[Convolution.symbol], counts


@st.composite
def convolutions(draw) -> Convolution:
    groups, per_group, more = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
    )
    pair = st.tuples(st.integers(1, 2), st.integers(1, 3))
    kernel, strides, dilations = draw(pair), draw(pair), draw(pair)
    pads = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    least = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    size = [n + draw(st.integers(0, 5)) for n in least]
    bias = draw(st.booleans())
    return Convolution(
        draw(st.sampled_from(DTYPES)),
        (draw(st.integers(1, 2)), *size, groups * per_group),
        (groups * more, *kernel, per_group),
        pads,
        strides,
        dilations,
        groups,
        bias,
        draw(st.sampled_from(["", "relu"])) if bias else "",
    )


def drawn(convolution: Convolution, rng: np.random.Generator) -> list[np.ndarray]:
    dtype = ml_dtypes.bfloat16 if convolution.dtype == "bfloat16" else np.dtype(convolution.dtype)
    shapes = [convolution.x, convolution.w, (1, 1, 1, convolution.w[0])]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def expected(convolution: Convolution, x, w, bias) -> np.ndarray:
    value = torch.nn.functional.conv2d(
        torch.from_numpy(x.astype("float64")).permute(0, 3, 1, 2),
        torch.from_numpy(w.astype("float64")).permute(0, 3, 1, 2),
        torch.from_numpy(bias.astype("float64")).flatten() if convolution.bias else None,
        convolution.strides,
        convolution.pads,
        convolution.dilations,
        convolution.groups,
    )
    value = torch.relu(value) if convolution.activation else value
    return value.permute(0, 2, 3, 1).numpy()


@given(convolutions(), st.integers(0, 2**32 - 1))
def test_any_convolution(stub, convolution, seed):
    assert is_key(convolution.key)
    assert convolution.why_not() == ""
    x, w, bias = drawn(convolution, np.random.default_rng(seed))
    wanted = expected(convolution, x, w, bias)
    out = tvm.runtime.empty(wanted.shape, convolution.dtype)
    given_ = [x, w, bias] if convolution.bias else [x, w]
    stub[0](*map(tvm.runtime.tensor, given_), *convolution.numbers, out)
    found = out.numpy().astype("float64")
    scale = max(float(np.abs(wanted).max()), 1)
    assert np.abs(found - wanted).max() <= TOLERANCE[convolution.dtype] * scale


def test_a_convolution_met_again_is_not_planned_again(stub):
    function, counts = stub
    x, w = np.ones((1, 5, 4, 2), "float32"), np.ones((3, 2, 2, 2), "float32")
    arguments = [*map(tvm.runtime.tensor, (x, w)), 0, 0, 1, 1, 1, 1, 1, 0]
    function(*arguments, tvm.runtime.empty((1, 4, 3, 3), "float32"))
    planned, ran = counts.stub_heuristics(), counts.stub_launches()
    for _ in range(3):
        function(*arguments, tvm.runtime.empty((1, 4, 3, 3), "float32"))
    assert counts.stub_heuristics() == planned
    assert counts.stub_launches() == ran + 3


@pytest.mark.parametrize(
    ("shapes", "dtypes", "numbers", "kind", "message"),
    [
        (((1, 4, 4, 2), (3, 2, 2, 2), (1, 4, 3, 3)), "fff", (), ValueError, "shapes do not fit"),
        (((1, 4, 4, 2), (3, 2, 2, 1), (1, 3, 3, 3)), "fff", (), ValueError, "shapes do not fit"),
        (((1, 4, 4, 2), (3, 5, 2, 2), (1, 1, 3, 3)), "fff", (), ValueError, "shapes do not fit"),
        (
            ((1, 4, 4, 2), (3, 2, 2, 2), (1, 3, 3, 3)),
            "fff",
            (0, 0, 0, 1, 1, 1, 1, 0),
            ValueError,
            "shapes do not fit",
        ),
        (
            ((1, 4, 4, 2), (3, 2, 2, 2), (1, 3, 3, 3)),
            "ffe",
            (),
            TypeError,
            "tensor 2 is of another",
        ),
        (((1, 4, 4, 2), (3, 2, 2, 2), (1, 3, 3, 3)), "ddd", (), TypeError, "unsupported type"),
        (
            ((4, 4, 2), (3, 2, 2, 2), (1, 3, 3, 3)),
            "fff",
            (),
            TypeError,
            "tensor 0 is not packed, of",
        ),
        (((1, 4, 4, 2), (3, 2, 2, 2), (1, 3, 3, 3)), "fff", (1,), TypeError, r"\(x, w, .*not 4"),
    ],
)
def test_what_it_refuses(stub, shapes, dtypes, numbers, kind, message):
    x, w, out = (
        tvm.runtime.tensor(np.zeros(shape, dtype))
        for shape, dtype in zip(shapes, dtypes, strict=True)
    )
    with pytest.raises(kind, match=message):
        stub[0](x, w, *(numbers or (0, 0, 1, 1, 1, 1, 1, 0)), out)


def test_without_the_library_it_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("BURNISH_CUDNN", str(tmp_path / "none.so"))
    module = tvm_ffi.load_module(str(build_function(Convolution, tmp_path)))
    one = tvm.runtime.tensor(np.ones((1, 1, 1, 1), "float32"))
    with pytest.raises(
        RuntimeError, match=r"calls cuDNN 9.*none.so.*pip install nvidia-cudnn-cu13"
    ):
        module[Convolution.symbol](one, one, 0, 0, 1, 1, 1, 1, 1, 0, one)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"dtype": "int8"}, "it takes float16, bfloat16, float32, not int8"),
        ({"activation": "relu"}, "it applies relu after a bias only"),
        ({"bias": True, "activation": "gelu_tanh"}, "it applies relu only, not gelu_tanh"),
        ({"x": (0, 4, 4, 2)}, "an axis has no elements"),
    ],
)
def test_convolutions_that_are_not_for_it(fields, why):
    base = {"dtype": "float32", "x": (1, 4, 4, 2), "w": (3, 2, 2, 2)}
    assert why in Convolution(**{**base, **fields}).why_not()
