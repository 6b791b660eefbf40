"""Models for sets of cores, and two of this machine's."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

CORES = (sorted(os.sched_getaffinity(0)) * 2)[:2]
FIRST, SECOND = (f"cpu@{core}" for core in CORES)
TARGET = f"hetero:{FIRST},{SECOND}"


class Small(torch.nn.Module):
    """Two branches that join."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4)

    def forward(self, x):
        return torch.relu(self.left(x)) + torch.tanh(self.right(x))


class Wide(torch.nn.Module):
    """Two branches, a product and a convolution large enough for the loops of several threads."""

    def __init__(self) -> None:
        super().__init__()
        self.left = torch.nn.Linear(192, 192)
        self.right = torch.nn.Conv2d(1, 16, 3, padding=1)

    def forward(self, x):
        return torch.relu(self.left(x)) + self.right(x[None, None]).tanh().mean(1)[0]


def workers() -> set[str]:
    """Threads of our pools in this process, by number."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that ends is there a moment longer
            if (task / "comm").read_text().strip() == "burnish":
                found.add(task.name)
    return found
