"""A small convolution network for Fashion-MNIST, with batch norms that a compiler can fold.

Weights and a part of the data set are in ``weights/``: 2,000 of the 10,000 test pictures evaluate,
256 training pictures calibrate. ``train_fashion.py`` made both.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from burnish.models import files
from burnish.models.zoo import Forward, Inputs, Metric, ZooModel, arrays, pick

WEIGHTS = files.PACKAGE / "weights" / "fashion-cnn.safetensors"
PICTURES = files.PACKAGE / "weights" / "fashion-pictures.safetensors"
MEAN, DEVIATION = 0.2860, 0.3530  # of the training pictures, scaled to [0, 1]


class FashionCNN(nn.Module):
    """``[B, 1, 28, 28] float32 -> logits [B, 10]``."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 64, 64)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.hidden = nn.Linear(64 * 3 * 3, 64)
        self.classes = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = F.relu(norm(convolution(x)))
            if i > 0:
                x = F.max_pool2d(x, 2)
        return self.classes(F.relu(self.hidden(x.flatten(1))))


@dataclass(frozen=True)
class Pictures:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, Expat licence)."""

    def held_out(self, n: int, seed: int) -> list[Inputs]:
        return [(scaled(image[None]),) for image in pick(_pack()["test.images"], n, seed)]

    def calibration(self, n: int) -> list[Inputs]:
        return [(scaled(image[None]),) for image in pick(_pack()["calibration.images"], n)]

    def evaluate(self, forward: Forward, limit: int | None) -> float:
        """Accuracy on the first ``limit`` test pictures, one at a time."""
        images, labels = _pack()["test.images"][:limit], _pack()["test.labels"][:limit]
        guesses = [arrays(forward(scaled(image[None])))[0].argmax() for image in images]
        return float(np.mean(np.array(guesses) == labels.numpy()))


def load() -> ZooModel:
    model = FashionCNN()
    model.load_state_dict(load_file(WEIGHTS))
    return ZooModel(
        name="fashion-cnn",
        task="image classification",
        description="four convolutions with batch norm, 98 k parameters, on Fashion-MNIST",
        model=model.eval(),
        example_inputs=Pictures().held_out(1, 0)[0],
        metric=Metric("accuracy on 2,000 Fashion-MNIST test pictures", higher_is_better=True),
        baseline="eager",
        licence="Apache-2.0; the pictures Expat",
        source="trained by models/train_fashion.py",
        data=Pictures(),
    )


def scaled(images: Tensor) -> Tensor:
    """``[B, 28, 28] uint8 -> [B, 1, 28, 28] float32`` of mean 0 and deviation 1."""
    return ((images.float() / 255.0 - MEAN) / DEVIATION)[:, None]


@functools.cache
def _pack() -> dict[str, Tensor]:
    return load_file(PICTURES)
