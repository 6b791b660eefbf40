"""DLRM (arXiv:1906.00091) at the widths published for Criteo's terabyte, tables of 10,000 rows."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

DENSE, TABLES, ROWS, WIDTH = 13, 26, 10_000, 64
BOTTOM, TOP = (512, 256, WIDTH), (512, 512, 256, 1)


class Recommender(nn.Module):
    """``dense [B, 13] float32, sparse [B, 26] int64 -> logit [B, 1]``."""

    pairs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(ROWS, WIDTH) for _ in range(TABLES))
        self.bottom = nn.Sequential(*_layers((DENSE, *BOTTOM)))
        count = TABLES + 1
        pairs = [i * count + j for i in range(count) for j in range(i)]
        self.register_buffer("pairs", torch.tensor(pairs), persistent=False)
        self.top = nn.Sequential(*_layers((WIDTH + len(pairs), *TOP))[:-1])

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        first = self.bottom(dense)
        looked_up = [table(sparse[:, i]) for i, table in enumerate(self.embeddings)]
        vectors = torch.stack([first, *looked_up], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
        chosen = torch.index_select(products, 1, self.pairs)
        return self.top(torch.cat([first, chosen], dim=1))


def _layers(widths: tuple[int, ...]) -> list[nn.Module]:
    """Linear layers, each with a ReLU."""
    pairs = itertools.pairwise(widths)
    return [part for i, o in pairs for part in (nn.Linear(i, o), nn.ReLU())]
