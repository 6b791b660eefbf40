"""Prune a 784-128-10 network by threshold, store its weights as int8, compare it with eager.

Run it with ``python examples/mlp_prune_quantize.py``. It trains for a second on drawn "digits"
(ten blurred patterns in noise), so it needs no download.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import burnish
from burnish.compiler.compare import Comparison

CLASSES, SIDE = 10, 28


def drawn_digits(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """``count`` noisy pictures ``[count, 784]`` and their classes ``[count]``."""
    patterns = torch.rand(CLASSES, 1, 7, 7, generator=torch.Generator().manual_seed(0)) > 0.6
    pictures = nn.functional.interpolate(patterns.float(), size=(SIDE, SIDE), mode="bilinear")
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=random)
    noise = torch.randn(count, SIDE * SIDE, generator=random)
    return 0.1 * (pictures[labels, 0].flatten(1) + 1.5 * noise), labels


def train(model: nn.Module, steps: int = 200) -> None:
    """Adam, with a small penalty on |w|: weights that the task does not need go to zero."""
    inputs, labels = drawn_digits(2000, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    random = torch.Generator().manual_seed(2)
    for _ in range(steps):
        batch = torch.randint(len(inputs), (64,), generator=random)
        loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
        for weight in model.parameters():
            loss = loss + 3e-4 * weight.abs().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> Comparison:
    """Train, compile, compare; returns the comparison that it prints."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIDE * SIDE, 128), nn.ReLU(), nn.Linear(128, CLASSES))
    train(model)
    model.eval()
    pictures, labels = drawn_digits(1000, seed=3)

    def accuracy(run: Callable[[Tensor], Tensor]) -> float:
        """The share of test pictures that ``run`` gets right, one picture a call."""
        answers = torch.cat([run(picture[None]) for picture in pictures]).argmax(1)
        return (answers == labels).float().mean().item()

    compiled = burnish.compile(
        model,
        (pictures[:1],),
        prune=burnish.PruneConfig(threshold=0.1),
        quantize=burnish.QuantizeConfig(bits=8, granularity="channel"),
    )
    result = burnish.compare(model, compiled, (pictures[:1],), evaluate=accuracy)
    result.table()
    return result


if __name__ == "__main__":
    main()
