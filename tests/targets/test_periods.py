"""Joins within an axis that is then merged with another: conditions that repeat."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import burnish


class _Rotary(torch.nn.Module):
    """Halves of each head turned by an angle, the heads merged."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        a, b = x.reshape(batch, length, self.heads, width // self.heads).chunk(2, -1)
        cos, sin = cos[:, :, None], sin[:, :, None]
        turned = torch.cat((cos * a - sin * b, sin * a + cos * b), -1)
        return turned.reshape(batch, length, width)


@pytest.mark.parametrize(
    ("heads", "size"), [(4, 8), (3, 6), (5, 16), (2, 64), (40, 8), (7, 2), (9, 10)]
)
def test_halves_of_each_head_are_where_they_belong(heads: int, size: int) -> None:
    rng = np.random.default_rng(heads)
    x = torch.from_numpy(rng.standard_normal((2, 3, heads * size), np.float32))
    cos, sin = torch.from_numpy(rng.standard_normal((2, 2, 3, size // 2), np.float32))
    model = _Rotary(heads).eval()
    compiled = burnish.compile(model, (x, cos, sin), do_no_harm=False, threads=1)
    want = model(x.double(), cos.double(), sin.double()).numpy()
    np.testing.assert_allclose(np.asarray(compiled(x, cos, sin)), want, rtol=1e-5, atol=1e-5)
