"""ONNX's quantized operators against ONNX Runtime; casts to small types, bit by bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_support import model_of, node_run, run, runtime, same

F8 = {
    TensorProto.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn,
    TensorProto.FLOAT8E5M2: ml_dtypes.float8_e5m2,
    TensorProto.FLOAT8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
}
EDGES = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-30, 448, 449, 464, 465, 480, 57344, 61440],
    np.float32,
)


def _floats(rng: np.random.Generator, dtype: type) -> np.ndarray:
    """Every binade that matters, ties between codes among them, and the edges."""
    spread = rng.standard_normal(4000) * 2.0 ** rng.integers(-22, 18, 4000)
    codes = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    finite = np.sort(codes[np.isfinite(codes)])
    ties = (finite[1:] + finite[:-1]) / 2
    return np.concatenate([spread, ties, finite, EDGES]).astype(np.float32)


@pytest.mark.parametrize("to", F8)
@pytest.mark.parametrize("saturate", [0, 1])
def test_casts_to_8_bit_floats_are_those_of_ml_dtypes(to: int, saturate: int) -> None:
    x = _floats(np.random.default_rng(to), F8[to])
    _, _, (got,) = node_run("Cast", [x], to=to, saturate=saturate)
    limits = ml_dtypes.finfo(F8[to])
    clipped = np.clip(x, float(limits.min), float(limits.max)) if saturate else x
    want = clipped.astype(F8[to])
    assert got.dtype == want.dtype
    both_nan = np.isnan(got.astype(np.float32)) & np.isnan(want.astype(np.float32))
    same_bits = got.view(np.uint8) == want.view(np.uint8)
    assert np.all(same_bits | both_nan)


@pytest.mark.parametrize("kind", F8)
def test_every_8_bit_float_casts_back(kind: int) -> None:
    x = np.arange(256, dtype=np.uint8).view(F8[kind])
    _, _, (got,) = node_run("Cast", [x], to=TensorProto.FLOAT)
    np.testing.assert_array_equal(got, x.astype(np.float32))


def test_small_integers_wrap_and_travel_as_bytes() -> None:
    x = np.arange(-40, 40).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["small"], to=TensorProto.INT4),
        helper.make_node("Reshape", ["small", "shape"], ["moved"]),
        helper.make_node("Cast", ["moved"], ["y"], to=TensorProto.FLOAT),
    ]
    model = model_of(nodes, {"x": x}, ["y", "moved"], {"shape": np.array([8, 10])})
    value, carried = run(model, {"x": x})
    want = x.astype(ml_dtypes.int4).reshape(8, 10)
    np.testing.assert_array_equal(value, want.astype(np.float32))
    same([carried], [want.astype(np.int8)])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("per_axis", [False, True])
def test_quantize_and_back(dtype: type, per_axis: bool) -> None:
    rng = np.random.default_rng(7)
    info = np.iinfo(dtype)
    x = (rng.standard_normal((3, 5, 7)) * 3).astype(np.float32)
    x[0, 0] = [0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9]
    shape = (5,) if per_axis else ()
    scale = np.asarray(rng.uniform(0.01, 1, shape), np.float32)
    zero = np.asarray(rng.integers(info.min, info.max, shape), dtype)
    if not per_axis:
        scale[()] = 1.0
    model, given, got = node_run("QuantizeLinear", [x, scale, zero], axis=1)
    same(got, runtime(model, given))
    model, given, back = node_run("DequantizeLinear", [got[0], scale, zero], axis=1)
    same(back, runtime(model, given), rtol=1e-6)


@pytest.mark.parametrize("size", [12, 10])
def test_blocks_of_4_bits(size: int) -> None:
    rng = np.random.default_rng(size)
    x = (rng.standard_normal((size, 6)) * 2).astype(np.float32)
    blocks = -(-size // 4)
    scale = rng.uniform(0.1, 0.5, (blocks, 6)).astype(np.float32)
    zero = rng.integers(0, 15, (blocks, 6)).astype(ml_dtypes.uint4)
    _, _, (got,) = node_run("QuantizeLinear", [x, scale, zero], axis=0, block_size=4)
    long_scale = np.repeat(scale, 4, 0)[:size]
    long_zero = np.repeat(zero.astype(np.int32), 4, 0)[:size]
    want = np.clip(np.rint(x / long_scale) + long_zero, 0, 15).astype(np.uint8)
    same([got], [want])
    quantized = want.astype(ml_dtypes.uint4)
    _, _, (back,) = node_run(
        "DequantizeLinear", [quantized, scale, zero], constants=[0, 2], axis=0, block_size=4
    )
    same([back], [(want.astype(np.int32) - long_zero).astype(np.float32) * long_scale], rtol=1e-6)


def test_dynamic_quantization_of_anything() -> None:
    rng = np.random.default_rng(3)
    for x in (rng.standard_normal((4, 9)), rng.uniform(1, 2, (3, 3)), -rng.uniform(1, 2, 5)):
        model, given, got = node_run("DynamicQuantizeLinear", [x.astype(np.float32)], outputs=3)
        same(got, runtime(model, given), rtol=1e-6)
    _, _, (zeros, scale, _) = node_run(
        "DynamicQuantizeLinear", [np.zeros((2, 2), np.float32)], outputs=3
    )
    assert not zeros.any()
    assert scale == np.float32(1 / 255)


@pytest.mark.parametrize(
    ("a", "b"), [(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8)]
)
def test_integer_products(a: type, b: type) -> None:
    rng = np.random.default_rng(11)

    def ints(shape: tuple[int, ...], dtype: type) -> np.ndarray:
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)

    x, w = ints((2, 5, 33), a), ints((33, 7), b)
    model, given, got = node_run("MatMulInteger", [x, w, ints((), a), ints((7,), b)])
    same(got, runtime(model, given))
    scale = [np.float32(v) for v in (0.02, 0.013, 0.7)]
    inputs = [x, scale[0], ints((), a), w, scale[1], ints((), b), scale[2], ints((), a)]
    model, given, got = node_run("QLinearMatMul", [np.asarray(v) for v in inputs])
    same(got, runtime(model, given))


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
def test_quantized_convolutions(group: int, auto_pad: str) -> None:
    rng = np.random.default_rng(group)
    x = rng.integers(0, 255, (2, 4, 9, 8)).astype(np.uint8)
    w = rng.integers(-128, 127, (6, 4 // group, 3, 3)).astype(np.int8)
    attrs = {"group": group, "strides": [2, 1]}
    attrs |= {"pads": [1, 0, 2, 1]} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    scale = rng.uniform(0.001, 0.01, 6).astype(np.float32)
    inputs = [
        x, np.float32(0.02), np.uint8(117), w, scale, np.zeros(6, np.int8), np.float32(0.05),
        np.uint8(90), rng.integers(-900, 900, 6).astype(np.int32),
    ]  # fmt: skip
    model, given, got = node_run(
        "QLinearConv", [np.asarray(v) for v in inputs], constants=[3, 4, 5, 8], **attrs
    )
    same(got, runtime(model, given))
    model, given, got = node_run(
        "ConvInteger", [x, w.astype(np.uint8), np.asarray(3, np.uint8)], **attrs
    )
    same(got, runtime(model, given))


def test_strings_are_refused_by_name() -> None:
    from burnish.compiler.errors import UnsupportedOperatorError

    node = helper.make_node("Cast", ["x"], ["y"], name="to_text", to=TensorProto.STRING)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, [3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    onnx.checker.check_model(model)
    with pytest.raises(UnsupportedOperatorError, match=r"to_text.*STRING has no form in TVM"):
        run(model, {})
