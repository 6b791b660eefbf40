"""Networks quantized by ONNX Runtime's own quantizer, against ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_support import node_run, run, runtime, same


class _Images(torch.nn.Module):
    """Convolutions in groups and not, a residual, pools, and what else is quantized by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.second = torch.nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.third = torch.nn.Conv2d(16, 8, 1)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.first(x))
        b = torch.nn.functional.leaky_relu(self.second(a)) + a
        c = self.third(torch.cat([a, torch.sigmoid(b)], 1)) * 1.5
        d = torch.nn.functional.avg_pool2d(torch.nn.functional.max_pool2d(c, 2), 2)
        return torch.softmax(self.head(d.mean((2, 3))), -1)


class _Words(torch.nn.Module):
    """One encoder layer of BERT's kind."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 16)
        self.heads = torch.nn.Linear(16, 48)
        self.out = torch.nn.Linear(16, 16)
        self.norm = torch.nn.LayerNorm(16)
        self.up = torch.nn.Linear(16, 32)
        self.down = torch.nn.Linear(32, 16)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        q, k, v = self.heads(x).view(1, -1, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        a = torch.softmax(q @ k.transpose(-1, -2) * 8**-0.5, -1) @ v
        x = self.norm(x + self.out(a.transpose(1, 2).reshape(1, -1, 16)))
        return x + self.down(torch.nn.functional.gelu(self.up(x)))


def _samples(kind: str, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    if kind == "images":
        return [rng.standard_normal((1, 3, 16, 16)).astype(np.float32) for _ in range(count)]
    return [rng.integers(0, 50, (1, 7)) for _ in range(count)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The float networks as files, prepared for quantization."""
    from onnxruntime.quantization.preprocess import quant_pre_process

    folder = tmp_path_factory.mktemp("float")
    files = {}
    torch.manual_seed(0)
    for kind, net in (("images", _Images()), ("words", _Words())):
        example = torch.from_numpy(_samples(kind, 1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net.eval(), (example,), str(folder / f"{kind}.onnx"), dynamo=False,
                opset_version=17, input_names=["x"],
            )  # fmt: skip
        files[kind] = folder / f"{kind}_ready.onnx"
        quant_pre_process(str(folder / f"{kind}.onnx"), str(files[kind]), skip_symbolic_shape=True)
    return files


def _quantized(source: Path, kind: str, form: str, target: Path) -> onnx.ModelProto:
    from onnxruntime import quantization as q

    kinds = {"weight_type": q.QuantType.QInt8}
    if form == "dynamic":
        unsigned = {"weight_type": q.QuantType.QUInt8} if kind == "images" else kinds
        q.quantize_dynamic(str(source), str(target), **unsigned)
    else:

        class Reader(q.CalibrationDataReader):
            def __init__(self) -> None:
                self.rows: Iterator[np.ndarray] = iter(_samples(kind, 8))

            def get_next(self) -> dict[str, np.ndarray] | None:
                row = next(self.rows, None)
                return None if row is None else {"x": row}

        style = q.QuantFormat.QOperator if form.startswith("operators") else q.QuantFormat.QDQ
        q.quantize_static(
            str(source), str(target), Reader(), quant_format=style,
            per_channel=form.endswith("channels"), activation_type=q.QuantType.QUInt8, **kinds,
        )  # fmt: skip
    return onnx.load(str(target))


_HEAVY = pytest.mark.heavy


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("images", "operators by channels"),
        ("words", "dynamic"),
        *(
            pytest.param(kind, form, marks=_HEAVY)
            for kind, form in (
                ("images", "dynamic"),
                ("images", "operators"),
                ("images", "pairs"),
                ("words", "operators"),
                ("words", "operators by channels"),
                ("words", "pairs"),
            )
        ),
    ],
)
def test_networks_of_the_quantizer(
    exported: dict[str, Path], tmp_path: Path, kind: str, form: str
) -> None:
    model = _quantized(exported[kind], kind, form, tmp_path / "quantized.onnx")
    for row in _samples(kind, 2):
        (want,) = runtime(model, {"x": row})
        (got,) = run(model, {"x": row})
        # One step of the last activations, where rounding goes the other way.
        assert np.abs(got - want).max() <= 0.02 * np.abs(want).max()
        assert np.median(np.abs(got - want)) <= 0.005 * np.abs(want).max()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("points", [False, True])
def test_weights_of_few_bits(bits: int, points: bool) -> None:
    rng = np.random.default_rng(bits)
    rows, depth, block = 6, 80, 32
    blocks, per = 3, 8 // bits
    codes = rng.integers(0, 1 << bits, (rows, blocks * block)).astype(np.uint8)
    scales = rng.uniform(0.1, 1, (rows, blocks)).astype(np.float32)
    zeros = rng.integers(0, 1 << bits, (rows, blocks)).astype(np.uint8)
    x = rng.standard_normal((2, 3, depth)).astype(np.float32)

    def packed(values: np.ndarray) -> np.ndarray:
        wide = np.pad(values, ((0, 0), (0, -values.shape[1] % per)))
        parts = [wide[:, i::per].astype(np.uint32) << (i * bits) for i in range(per)]
        return np.bitwise_or.reduce(parts).astype(np.uint8)

    inputs = [x, packed(codes).reshape(rows, blocks, -1), scales.ravel()]
    inputs += [packed(zeros).ravel()] if points else []
    _, _, (got,) = node_run(
        "MatMulNBits", inputs, constants=range(1, len(inputs)), domain="com.microsoft",
        K=depth, N=rows, bits=bits, block_size=block,
    )  # fmt: skip
    middle = zeros if points else np.full_like(zeros, 1 << (bits - 1))
    whole = (codes.astype(np.float64) - np.repeat(middle, block, 1)) * np.repeat(scales, block, 1)
    same([got], [(x @ whole[:, :depth].T).astype(np.float32)])


def test_what_the_optimizer_fuses() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, 5, 3), (2, 4, 5)))
    attrs = {"transA": 1, "transB": 1, "alpha": 0.5}
    model, given, got = node_run("FusedMatMul", [a, b], domain="com.microsoft", **attrs)
    same(got, runtime(model, given))
    for name in ("Gelu", "QuickGelu"):
        model, given, got = node_run(name, [a], domain="com.microsoft")
        same(got, runtime(model, given))
    weights = rng.integers(-100, 100, (3, 4)).astype(np.int8)
    model, given, got = node_run(
        "DynamicQuantizeMatMul", [a, weights, np.float32([0.02]), np.int8([3])],
        domain="com.microsoft",
    )  # fmt: skip
    same(got, runtime(model, given))
