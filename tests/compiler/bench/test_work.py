"""Counting what a call must do, against figures worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from burnish.compiler.bench.work import count_work


class Attention(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, q, q, is_causal=self.causal)


class Tied(nn.Module):
    """A table that is looked up in, and, if ``tied``, multiplied by as well."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(1000, 16)
        self.tied = tied

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        return F.linear(x, self.table.weight) if self.tied else x


def test_a_linear_layer():
    work = count_work(nn.Linear(64, 32), (torch.randn(8, 64),))
    assert work.flops == 2 * 8 * 64 * 32
    assert work.bytes == 4 * (64 * 32 + 32 + 8 * 64 + 8 * 32)


def test_a_convolution_with_groups():
    work = count_work(nn.Conv2d(8, 16, 3, groups=4, bias=False), (torch.randn(1, 8, 10, 10),))
    assert work.flops == 2 * 8 * 8 * 16 * 9 * 2
    assert work.bytes == 4 * (16 * 2 * 9 + 8 * 100 + 16 * 64)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_counts_the_triangle_that_a_causal_mask_leaves(causal):
    work = count_work(Attention(causal), (torch.randn(1, 2, 64, 16),))
    pairs = 64 * 65 // 2 if causal else 64 * 64
    assert work.flops == 2 * 2 * 2 * pairs * 16


@pytest.mark.parametrize("tied", [False, True])
def test_of_a_table_only_looked_up_in_the_rows_count(tied):
    work = count_work(Tied(tied), (torch.tensor([[1, 2, 3]]),))
    read = 1000 * 16 if tied else 3 * 16
    written = 3 * 1000 if tied else 3 * 16
    assert work.bytes == 4 * (read + written) + 3 * 8


def test_an_lstm_counts_its_products():
    lstm = nn.LSTM(16, 32, 2)
    work = count_work(lstm, (torch.randn(5, 1, 16),))
    assert work.flops == 2 * 5 * 4 * 32 * ((16 + 32) + (32 + 32))


def test_a_weight_seen_through_views_counts_once_and_whole():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 64))

        def forward(self, x):
            return x @ self.weight.t() + x @ self.weight[:16].repeat(2, 1).t()

    work = count_work(Views(), (torch.randn(8, 64),))
    assert work.bytes == 4 * (32 * 64 + 8 * 64 + 8 * 32)
