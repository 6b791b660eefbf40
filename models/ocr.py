"""PP-OCRv4's recognition network: a line of print to characters, on lines drawn from Wikipedia."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from burnish.models import drawn, files
from burnish.models.zoo import Forward, Inputs, Metric, ZooModel, arrays, optional, pick

HEIGHT, WIDTH, LINES = 48, 640, 100


@dataclass(frozen=True)
class DrawnLines:
    """100 lines of held-out articles evaluate, lines of the others calibrate."""

    def held_out(self, n: int, seed: int) -> list[Inputs]:
        return [(pixels(text),) for text in pick(_lines(True), n, seed)]

    def calibration(self, n: int) -> list[Inputs]:
        return [(pixels(text),) for text in pick(_lines(False), n)]

    def evaluate(self, forward: Forward, limit: int | None) -> float:
        """Character error rate: edits between the first ``limit`` lines and what was read."""
        edits = length = 0
        for text in _lines(True)[:limit]:
            edits += edit_distance(read(arrays(forward(pixels(text)))[0]), text)
            length += len(text)
        return edits / length


def load() -> ZooModel:
    return ZooModel(
        name="pp-ocr-rec",
        task="text recognition",
        description="PP-OCRv4 recognition, 2.69 M parameters; 48 x 640 pixels to 6,625 characters",
        model=onnx.load(_path()),
        example_inputs=DrawnLines().held_out(1, 0)[0],
        metric=Metric("character error rate on drawn lines", higher_is_better=False),
        baseline="onnxruntime",
        licence="Apache-2.0; the text CC BY-SA",
        source=f"{files.wheels()['rapidocr-onnxruntime']}; {files.wheels()['gensim']}",
        data=DrawnLines(),
    )


def pixels(text: str) -> np.ndarray:
    """The line drawn, 48 pixels high, values in [-1, 1], padded with 0: ``[1, 3, 48, 640]``."""
    picture = optional("PIL.Image").fromarray(drawn.line_pixels(text))
    width = min(WIDTH, round(picture.width * HEIGHT / picture.height))
    scaled = picture.resize((width, HEIGHT), optional("PIL.Image").Resampling.BILINEAR)
    values = np.zeros((1, 3, HEIGHT, WIDTH), dtype=np.float32)
    values[0, :, :, :width] = np.asarray(scaled, np.float32).transpose(2, 0, 1) / 127.5 - 1.0
    return values


def read(chances: np.ndarray) -> str:
    """CTC by the best character of each column: repeats and blanks (index 0) go."""
    best = chances[0].argmax(axis=1)
    kept = [i for i, before in zip(best, [0, *best[:-1]], strict=True) if i != before and i != 0]
    return "".join(_characters()[i] for i in kept).strip()


def edit_distance(read_: str, wanted: str) -> int:
    """Insertions, deletions and substitutions between two strings (Levenshtein)."""
    row = list(range(len(wanted) + 1))
    for i, mine in enumerate(read_, start=1):
        corner, row[0] = row[0], i
        for j, theirs in enumerate(wanted, start=1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (mine != theirs))
    return row[-1]


def _path() -> Path:
    return files.one("rapidocr-onnxruntime", "*/models/ch_PP-OCRv4_rec_infer.onnx")


@functools.cache
def _characters() -> list[str]:
    kept = {entry.key: entry.value for entry in onnx.load(_path()).metadata_props}["character"]
    return ["", *kept.splitlines(), " "]


@functools.cache
def _lines(held_out: bool) -> list[str]:
    return drawn.lines(LINES, held_out=held_out)
