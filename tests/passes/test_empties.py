"""Results without elements, through the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import burnish


class _Tails(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x * 2, torch.zeros(2, 0, 3), torch.zeros(0, dtype=torch.int64)


def test_constants_without_elements_are_saved_and_loaded(tmp_path: Path) -> None:
    x = torch.randn(3, 5)
    compiled = burnish.compile(_Tails(), (x,), do_no_harm=False)
    path = tmp_path / "model.burnish"
    compiled.save(path)
    for module in (compiled, burnish.load(path)):
        twice, floats, ints = (np.asarray(value) for value in module(x))
        np.testing.assert_allclose(twice, 2 * x.numpy(), rtol=1e-6)
        assert (floats.shape, floats.dtype) == ((2, 0, 3), np.float32)
        assert (ints.shape, ints.dtype) == ((0,), np.int64)
