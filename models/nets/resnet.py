"""ResNet-18 and ResNet-50 (arXiv:1512.03385); the stride of a bottleneck is in its 3x3."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (64, 128, 256, 512)


def _norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias and its batch norm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """``relu(body(x) + x)``, the input projected where its shape changes."""

    def __init__(self, body: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def _basic(inputs: int, width: int, stride: int) -> Residual:
    body = nn.Sequential(_norm(inputs, width, 3, stride), nn.ReLU(), _norm(width, width, 3))
    return Residual(body, inputs, width, stride)


def _bottleneck(inputs: int, width: int, stride: int) -> Residual:
    body = nn.Sequential(
        *(_norm(inputs, width, 1), nn.ReLU()),
        *(_norm(width, width, 3, stride), nn.ReLU()),
        _norm(width, 4 * width, 1),
    )
    return Residual(body, inputs, 4 * width, stride)


class ResNet(nn.Module):
    """``[B, 3, 224, 224] float32 -> logits [B, 1000]``; ``depths`` are the blocks of each stage."""

    def __init__(self, depths: tuple[int, ...], bottleneck: bool) -> None:
        super().__init__()
        make, grown = (_bottleneck, 4) if bottleneck else (_basic, 1)
        self.stem = nn.Sequential(_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks, channels = [], 64
        for stage, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True)):
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(make(channels, width, stride))
                channels = width * grown
        self.blocks = nn.Sequential(*blocks)
        self.classes = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.classes(F.adaptive_avg_pool2d(x, 1).flatten(1))
