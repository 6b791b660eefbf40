"""MobileNetV2 (arXiv:1801.04381) at width 1."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

# Expansion, output channels, blocks, stride of the first: the paper's table 2.
STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


def _norm(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution without bias and its batch norm."""
    padding = kernel // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, project; the input is added where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        expand = [*_norm(inputs, wide), nn.ReLU6()] if expansion != 1 else []
        depthwise = [*_norm(wide, wide, 3, stride, wide), nn.ReLU6()]
        self.body = nn.Sequential(*expand, *depthwise, *_norm(wide, outputs))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class MobileNetV2(nn.Module):
    """``[B, 3, 224, 224] float32 -> logits [B, 1000]``."""

    def __init__(self) -> None:
        super().__init__()
        blocks, channels = [], 32
        for expansion, outputs, count, stride in STAGES:
            for index in range(count):
                first = stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, outputs, first, expansion))
                channels = outputs
        self.stem = nn.Sequential(*_norm(3, 32, 3, 2), nn.ReLU6())
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_norm(channels, 1280), nn.ReLU6())
        self.classes = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        return self.classes(F.adaptive_avg_pool2d(x, 1).flatten(1))
