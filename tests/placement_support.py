"""Small networks to be placed, and times that are given."""

from __future__ import annotations

from typing import Any

import torch

from burnish.compiler.placement.costs import CostModel, OperatorTime
from burnish.compiler.placement.problem import Link
from burnish.targets.hetero import HeteroTarget


class Twice(torch.nn.Module):
    """Two equal layers and one of its own, a residual, a convolution before them."""

    def __init__(self) -> None:
        super().__init__()
        self.image = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.same = torch.nn.ModuleList(torch.nn.Linear(32, 32) for _ in range(2))
        self.last = torch.nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.image(x)).mean((2,))
        y = y.reshape(1, 8, 4, 8).reshape(1, 8, 32)
        for layer in self.same:
            y = y + torch.relu(layer(y))
        return self.last(y)


class Given(CostModel):
    """Times by a rule: cheap on ``cpu``, half of it elsewhere for products."""

    def start_seconds(self) -> float:
        return 0.0

    def measure(self, operators: Any, target: Any, **_: Any) -> int:
        return 0

    def times(self, operators: Any, target: Any) -> Any:
        rate = {"cpu": 1.0, "opencl": 0.5}[target.kind]
        made = {
            op.signature: OperatorTime(
                *(2 * [1e-3 * (rate if op.record().flops else 2 - rate)]), error=0.1
            )
            for op in operators
        }
        return made, []


def links(target: HeteroTarget) -> tuple[Link, ...]:
    first, second = (place.name for place in target.places)
    return (Link(first, second, 1e-5, 1e10), Link(second, first, 1e-5, 1e10))


class Sides(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4)

    def forward(self, x):
        return torch.relu(self.left(x)) + torch.tanh(self.right(x))
