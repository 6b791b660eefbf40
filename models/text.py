"""Windows of Wikipedia prose for language models, and their perplexity on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from burnish.models import wikipedia
from burnish.models.zoo import Forward, Inputs, arrays, pick


@dataclass(frozen=True)
class Prose:
    """Windows of ``length`` tokens; held-out articles evaluate, the others calibrate.

    ``windows`` of them make a whole evaluation; their targets are the next tokens.
    """

    encode: Callable[[str], list[int]]
    length: int
    windows: int

    def held_out(self, n: int, seed: int) -> list[Inputs]:
        return [(window[:, :-1],) for window in pick(self._windows(True), n, seed)]

    def calibration(self, n: int) -> list[Inputs]:
        return [(window[:, :-1],) for window in pick(self._windows(False), n, seed=0)]

    def evaluate(self, forward: Forward, limit: int | None) -> float:
        """Perplexity a token over the first ``limit`` windows, each without those before it."""
        losses = []
        for window in self._windows(True)[:limit]:
            logits = torch.from_numpy(arrays(forward(window[:, :-1]))[0]).float()
            chances = logits.log_softmax(-1).gather(-1, window[:, 1:, None])
            losses.append(-chances.mean().item())
        return float(np.exp(np.mean(losses)))

    def _windows(self, held_out: bool) -> list[Tensor]:
        """``[1, length + 1]`` each: the last token of one is the first of the next."""
        tokens: list[int] = []
        for article in wikipedia.articles(held_out=held_out):
            tokens += self.encode(article)
            if len(tokens) > self.windows * self.length:
                break
        starts = range(0, len(tokens) - self.length, self.length)[: self.windows]
        return [torch.tensor([tokens[at : at + self.length + 1]]) for at in starts]
