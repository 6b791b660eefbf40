"""Arithmetic of open sizes: what torch reads from tensors, rounds up, cuts, pads and counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy  # type: ignore[import-untyped]
import torch
from import_support import compiled
from torch import nn
from torch.utils._sympy.functions import FloorDiv, Mod  # type: ignore[attr-defined]

from burnish.compiler.errors import UnsupportedOperatorError
from burnish.compiler.importers import import_model
from burnish.compiler.importers.pytorch.chunks import in_chunks


class Sizes(nn.Module):
    """Of ``x [n, 4]``, ``n`` up to 40: one result for each kind of arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(40, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        n = x.shape[0]
        span = torch.tensor(min(n, 60))
        more = (8 - n % 8) % 8
        padded = nn.functional.pad(x, (1, 0, 0, more), value=2.0)
        return {
            "read": self.table.expand(40, 90).T[60 - span : 60 + span - n],
            "chunks": padded.reshape(-1, 8, 5).sum(1),
            "back": padded[:n],
            "last": x[max(n - 64, 0) :] + x[-50:],
            "limited": x + self.table[max(0, 40 - n) :],
            "counted": torch.arange(n, -n, -1.0, dtype=torch.int64),
            "down": torch.arange(7, -4, -2),
            "twos": torch.arange(1, 2 * n, 2).float(),
            "picked": x.index_select(0, torch.arange(n - 1, -1, -1)),
        }


def test_open_sizes_are_computed_as_in_eager() -> None:
    torch.manual_seed(0)
    model = Sizes().eval()
    read = import_model(model, (torch.randn(20, 4),), dynamic={"x": {0: "n"}})
    # The table ends at 40: torch's trace says nothing of it.
    assert read.signature.symbols == {"n": (1, 40)}
    build = compiled(read.mod)
    for n in (20, 5, 13, 16, 40):
        x = torch.randn(n, 4)
        for name, got, want in zip(model(x), build(x.numpy()), model(x).values(), strict=True):
            assert got.dtype == want.numpy().dtype, name
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-6, atol=1e-6, err_msg=name)


def test_sizes_that_are_one_in_the_example_alone_are_refused() -> None:
    class Rounded(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            whole = nn.functional.pad(x, (0, 0, 0, (8 - x.shape[0] % 8) % 8))
            return whole.reshape(-1, 8, 4).reshape(-1, 4) + x

    with pytest.raises(UnsupportedOperatorError, match=r"took for\s+the same") as caught:
        import_model(Rounded().eval(), (torch.randn(16, 4),), dynamic={"x": {0: "n"}})
    assert "test_torch_sizes.py" in str(caught.value)
    assert "aten.add.Tensor" in str(caught.value)


def test_rounded_sizes_become_quotients() -> None:
    n = sympy.Symbol("n", positive=True, integer=True)
    whole = in_chunks(n + Mod(8 - Mod(n, 8), 8))
    assert whole == 8 * FloorDiv(n + 7, 8)
    assert in_chunks(FloorDiv(n + Mod(8 - Mod(n, 8), 8), 8)) == FloorDiv(n + 7, 8)
    assert in_chunks(n + Mod(4 - Mod(n, 8), 8)) == n + Mod(4 - Mod(n, 8), 8)
