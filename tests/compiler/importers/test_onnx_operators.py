"""ONNX operators with converters of ours, on random inputs against ONNX Runtime or NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_support import node_run, runtime, same

from burnish.compiler.errors import ImportModelError


def _floats(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _against_runtime(op: str, inputs: Any, rtol: float = 1e-4, **rest: Any) -> None:
    model, given, got = node_run(op, inputs, **rest)
    same(got, runtime(model, given), rtol=rtol)


@pytest.mark.parametrize("layout", ["3d", pytest.param("4d", marks=pytest.mark.heavy)])
@pytest.mark.parametrize("mask", ["none", "bool", "float", "lengths"])
@pytest.mark.parametrize("causal", [0, 1])
def test_attention(layout: str, mask: str, causal: int) -> None:
    rng = np.random.default_rng(causal)
    batch, m, n, heads, groups, depth = 2, 5, 7, 4, 2, 8
    attrs: dict[str, Any] = {"is_causal": causal}
    shapes = [(batch, heads, m, depth), (batch, groups, n, depth), (batch, groups, n, depth)]
    q, k, v = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    bias = np.zeros((m, n), np.float64)
    given: list[np.ndarray | None] = [q, k, v]
    if mask == "bool":
        allowed = rng.integers(0, 2, (batch, 1, m, n)).astype(bool)
        allowed[0, 0, 1] = False
        given.append(allowed)
        bias = np.where(allowed, 0.0, -np.inf)
    elif mask == "float":
        given.append(rng.standard_normal((heads, m, n)).astype(np.float32))
        bias = np.asarray(given[-1], np.float64)
    elif mask == "lengths":
        lengths = np.array([5, 7], np.int64)
        given += [None, None, None, lengths]
        bias = np.where(np.arange(n) < lengths[:, None], 0.0, -np.inf)[:, None, None, :]
    if causal:
        start = lengths[:, None, None, None] - m if mask == "lengths" else 0
        bias = bias + np.where(np.arange(n) <= np.arange(m)[:, None] + start, 0.0, -np.inf)
    keys, values = (np.repeat(x, heads // groups, 1).astype(np.float64) for x in (k, v))
    scores = q @ keys.transpose(0, 1, 3, 2) / np.sqrt(depth) + bias
    top = scores.max(-1, keepdims=True)
    power = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = power.sum(-1, keepdims=True)
    want = power / np.where(total == 0, 1, total) @ values
    if layout == "3d":
        attrs |= {"q_num_heads": heads, "kv_num_heads": groups}
        given[:3] = [x.transpose(0, 2, 1, 3).reshape(batch, x.shape[2], -1) for x in (q, k, v)]
        want = want.transpose(0, 2, 1, 3).reshape(batch, m, -1)
    _, _, got = node_run("Attention", given, opset=24, **attrs)
    same(got, [want.astype(np.float32)])


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_attention_gives_scores_and_the_new_cache(mode: int) -> None:
    q, k, v = _floats(1, 2, 3, 4, 8), _floats(2, 2, 3, 6, 8), _floats(3, 2, 3, 6, 5)
    past = [_floats(4, 2, 3, 9, 8), _floats(5, 2, 3, 9, 5)]
    _, _, got = node_run(
        "Attention", [q, k, v, None, *past], outputs=4, opset=23, is_causal=1, softcap=2.0,
        qk_matmul_output_mode=mode,
    )  # fmt: skip
    keys, values = np.concatenate([past[0], k], 2), np.concatenate([past[1], v], 2)
    stages = [q @ keys.transpose(0, 1, 3, 2) / np.sqrt(8)]
    stages.append(2 * np.tanh(stages[0] / 2))
    hidden = np.arange(15) > np.arange(4)[:, None] + 9
    stages.append(np.where(hidden, -np.inf, stages[1]))
    power = np.exp(stages[2] - stages[2].max(-1, keepdims=True))
    stages.append(power / power.sum(-1, keepdims=True))
    want = [stages[3] @ values, keys, values, stages[mode]]
    same(got, [x.astype(np.float32) for x in want])


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    "coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
)
@pytest.mark.parametrize(
    "sizes",
    [(7, 9), *(pytest.param(n, marks=pytest.mark.heavy) for n in ((3, 4), (10, 12)))],
)
def test_resize(mode: str, coordinates: str, sizes: tuple[int, int]) -> None:
    x = _floats(0, 2, 3, 5, 6)
    _against_runtime(
        "Resize", [x, None, None, np.array([2, 3, *sizes])], constants=[3], opset=19, mode=mode,
        coordinate_transformation_mode=coordinates, nearest_mode="floor",
    )  # fmt: skip


def test_resize_with_antialias_along_named_axes() -> None:
    x = _floats(0, 1, 2, 16, 18)
    for mode in ("linear", "cubic"):
        _against_runtime(
            "Resize", [x, None, np.array([0.6, 0.4], np.float32)], constants=[2], opset=19,
            mode=mode, antialias=1, axes=[2, 3], rtol=1e-3,
        )  # fmt: skip


@pytest.mark.parametrize("half", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(half: str, ratio: int) -> None:
    rng = np.random.default_rng(ratio)
    corner = rng.uniform(-2, 12, (5, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.5, 14, (5, 2))], 1).astype(np.float32)
    _against_runtime(
        "RoiAlign", [_floats(0, 2, 3, 9, 11), boxes, np.array([0, 1, 1, 0, 1])], opset=16,
        coordinate_transformation_mode=half, sampling_ratio=ratio, spatial_scale=0.5,
        output_height=3, output_width=2,
    )  # fmt: skip


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("most", [2, 50])
def test_non_max_suppression(center: int, most: int) -> None:
    rng = np.random.default_rng(most)
    corner = rng.uniform(0, 10, (2, 40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.5, 6, (2, 40, 2))], 2)
    scores = rng.uniform(0, 1, (2, 3, 40)).round(2)
    inputs = [boxes.astype(np.float32), scores.astype(np.float32), np.array([most])]
    limits = [np.array([0.4], np.float32), np.array([0.2], np.float32)]
    _against_runtime(
        "NonMaxSuppression", [*inputs, *limits], constants=[2], opset=11, center_point_box=center
    )


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "NOTSET"])
def test_transposed_convolutions_of_a_given_shape(auto_pad: str) -> None:
    shape = {} if auto_pad != "NOTSET" else {"output_shape": [10, 11]}
    _against_runtime(
        "ConvTranspose", [_floats(0, 2, 4, 5, 6), _floats(1, 4, 3, 3, 4), _floats(2, 3)],
        opset=11, strides=[2, 2], auto_pad=auto_pad, **shape,
    )  # fmt: skip


@pytest.mark.parametrize("ceil", [0, 1])
def test_places_of_maxima(ceil: int) -> None:
    x = _floats(0, 2, 3, 9, 8).round(1)
    _against_runtime(
        "MaxPool", [x], outputs=2, opset=12, kernel_shape=[3, 3], strides=[2, 2],
        pads=[1, 1, 1, 1], ceil_mode=ceil,
    )  # fmt: skip


def test_col2im() -> None:
    _against_runtime(
        "Col2Im", [_floats(0, 2, 3 * 6, 16), np.array([7, 9]), np.array([2, 3])],
        constants=[1, 2], opset=18, strides=[2, 2], pads=[1, 0, 2, 1], dilations=[2, 1],
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fourier_transforms(dtype: type) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 12, 3, 2)).astype(dtype)
    whole = x[..., 0].astype(np.float64) + 1j * x[..., 1]
    for inverse, transform in ((0, np.fft.fft), (1, np.fft.ifft)):
        for length in (12, 9, 16):
            _, _, (got,) = node_run(
                "DFT", [x, np.array(length), np.array(1)], constants=[1, 2], opset=20,
                inverse=inverse,
            )  # fmt: skip
            want = transform(whole, length, axis=1)
            same([got], [np.stack([want.real, want.imag], -1).astype(dtype)])
    signal = rng.standard_normal((2, 50, 1)).astype(dtype)
    window = np.hanning(16).astype(dtype)
    _, _, (got,) = node_run("STFT", [signal, np.array(5), window], constants=[1], opset=17)
    frames = np.stack([signal[:, i * 5 : i * 5 + 16, 0] * window for i in range(7)], 1)
    want = np.fft.rfft(frames.astype(np.float64))
    same([got], [np.stack([want.real, want.imag], -1).astype(dtype)])


def test_norms_with_statistics() -> None:
    x, gamma, beta = _floats(0, 3, 4, 6), _floats(1, 4, 6), _floats(2, 4, 6)
    _against_runtime("LayerNormalization", [x, gamma, beta], outputs=3, opset=17, axis=1)
    _against_runtime("LpNormalization", [x], opset=17, p=1, axis=1)
    x[:, 1] = 0
    _, _, (got,) = node_run("LpNormalization", [x], opset=22, p=2, axis=2)
    norm = np.linalg.norm(x, axis=2, keepdims=True)
    same([got], [np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)).astype(np.float32)])


def test_determinants() -> None:
    x = np.random.default_rng(0).standard_normal((4, 5, 5))
    x[0, 0, 0] = 0
    x[1, 2] = x[1, 3]
    _, _, (got,) = node_run("Det", [x], opset=22)
    same([got], [np.linalg.det(x)], rtol=1e-9)


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_tensor_scatter(mode: str) -> None:
    cache, update = _floats(0, 3, 2, 8, 4), _floats(1, 3, 2, 3, 4)
    start = np.array([0, 5, 2 if mode == "linear" else 7])
    _, _, got = node_run("TensorScatter", [cache, update, start], opset=24, mode=mode)
    want = cache.copy()
    for b in range(3):
        want[b][:, (start[b] + np.arange(3)) % 8] = update[b]
    same(got, [want])


def test_one_hot_and_reversed_sequences() -> None:
    index = np.array([[0, 3, -1], [-4, 4, 9]])
    _against_runtime(
        "OneHot", [index, np.array(4), np.array([2, 7], np.float32)], constants=[1], opset=11,
        axis=1,
    )  # fmt: skip
    _against_runtime("ReverseSequence", [_floats(0, 5, 4, 2), np.array([1, 5, 3, 0])], opset=10)


def test_powers_of_integers_are_exact() -> None:
    base = np.array([3, -2, 7, -1, 0, 0, 5], np.int64)
    exponent = np.array([39, 63, 2, 101, 0, 70, 27], np.int64)
    _, _, (got,) = node_run("Pow", [base, exponent], opset=15)
    np.testing.assert_array_equal(got, base**exponent)


def test_what_must_be_known_is_named() -> None:
    x = _floats(0, 1, 1, 4, 4)
    with pytest.raises(ImportModelError, match=r"the_node.*its scales must be known at import"):
        node_run("Resize", [x, None, np.array([1, 1, 2, 2], np.float32)], opset=19)
    with pytest.raises(ImportModelError, match=r"the_node.*depth \(input 1\) must be known"):
        node_run("OneHot", [np.arange(3), np.array(4), np.array([0.0, 1.0])], opset=11)
    with pytest.raises(ImportModelError, match=r"33 x 33 matrix: at most 32 x 32"):
        node_run("Det", [np.eye(33, dtype=np.float32)], opset=22)


def test_half_convolutions_are_summed_in_float32() -> None:
    x, w = (
        _floats(i, *shape).astype(np.float16) for i, shape in enumerate([(1, 64, 5), (2, 64, 1)])
    )
    _, _, got = node_run("Conv", [x, w])
    want = np.einsum("ncw,oc->now", x.astype(np.float64), w[..., 0].astype(np.float64))
    same(got, [want.astype(np.float16)], rtol=1e-3, atol=1e-3)


def test_terms_are_counted_with_gaps() -> None:
    row = np.random.default_rng(0).integers(0, 3, (2, 12))
    _, _, got = node_run(
        "TfIdfVectorizer", [row], opset=9, mode="TF", min_gram_length=1, max_gram_length=2,
        max_skip_count=2, ngram_counts=[0, 2], ngram_indexes=[1, 0, 3], pool_int64s=[2, 0, 0, 1],
    )  # fmt: skip
    want = np.zeros((2, 4), np.float32)
    for b, one in enumerate(row.tolist()):
        want[b, 1], want[b, 0] = one.count(2), one.count(0)
        want[b, 3] = sum(
            pair == (0, 1) for gap in (1, 2, 3) for pair in zip(one, one[gap:], strict=False)
        )
    same(got, [want])
