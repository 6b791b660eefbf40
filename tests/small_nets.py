"""Small networks to compile."""

from __future__ import annotations

import torch
from torch import nn


class Classifier(nn.Module):
    """Convolutions with batch norm, depthwise too, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.BatchNorm2d(16),
            nn.ReLU6(),
            nn.Conv2d(16, 24, 1),
        )
        self.head = nn.Linear(24, 10)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Block(nn.Module):
    """One transformer block over embedded tokens; nested outputs."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(50, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> dict[str, object]:
        x = self.embed(tokens)
        b, n, width = x.shape
        parts = self.qkv(self.norm(x)).view(b, n, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        bias = (1 - mask[:, None, None, :].float()) * -1e4
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, width))
        x = x + self.down(nn.functional.gelu(self.up(x)))
        return {"last": x, "more": (x.mean(1), [x.argmax(-1)])}


class Mlp(nn.Sequential):
    """``x [*, 20] -> [*, 5]``."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(nn.Linear(20, width), nn.Tanh(), nn.Linear(width, 5))


def made(kind: type[nn.Module]) -> nn.Module:
    """The network in evaluation mode, its weights always the same."""
    torch.manual_seed(0)
    return kind().eval()
