"""Twenty seeded problems: networks, devices whose speeds differ by kind of operator, links."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from emulation import Speed
from torch import nn
from torch.nn import functional as F

from burnish.compiler.placement.problem import Link

COUNT = 20
AT_ONCE = (6, 13, 19)
"""Problems whose devices are cores that work at the same time."""
LIMITED = (2, 7, 10, 14, 17)
"""Problems with memory limits; in the last two of them neither of two devices holds all alone."""


@dataclass(frozen=True)
class Emulated:
    """What is emulated: devices by name, the host first.

    ``memory`` limits are shares of what the whole model takes on one device; ``refused`` has an
    operator that a device cannot run.
    """

    speeds: Mapping[str, Speed]
    links: tuple[Link, ...]
    memory: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return "hetero:" + ",".join(self.speeds)


@dataclass(frozen=True)
class Case:
    """One problem: a network with its inputs, and the devices."""

    number: int
    topology: str
    net: nn.Module
    inputs: tuple[torch.Tensor, ...]
    emulated: Emulated


class Chain(nn.Module):
    """Convolutions, then layers on what they give at each point."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        wide = draw.choice((16, 24, 32))
        convs = [nn.Conv2d(3, wide, 3, padding=1)]
        convs += [nn.Conv2d(wide, wide, 3, padding=1) for _ in range(draw.randint(1, 3))]
        self.convs = nn.ModuleList(convs)
        hidden = draw.choice((96, 160, 256))
        sizes = [wide, hidden, *(hidden for _ in range(draw.randint(0, 2))), wide]
        self.layers = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
        self.gelu = draw.random() < 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x = torch.relu(conv(x))
        x = F.max_pool2d(x, 2).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = F.gelu(layer(x)) if self.gelu else torch.relu(layer(x))
        return torch.softmax(x, -1)


class Inception(nn.Module):
    """Blocks of branches that are put side by side."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        wide = draw.choice((16, 24))
        self.stem = nn.Conv2d(3, wide, 3, padding=1)
        self.blocks = nn.ModuleList()
        for _ in range(draw.randint(1, 2)):
            sizes = [draw.choice((1, 3, 5)) for _ in range(draw.randint(2, 4))]
            self.blocks.append(
                nn.ModuleList(nn.Conv2d(wide, 12, size, padding=size // 2) for size in sizes)
            )
            wide = 12 * len(sizes)
        self.mix, self.head = nn.Linear(wide, 192), nn.Linear(192, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = torch.cat([torch.relu(conv(x)) for conv in block], 1)
        x = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        return self.head(torch.tanh(self.mix(x)))


class Residual(nn.Module):
    """Blocks of two convolutions around which the input goes."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        wide = draw.choice((24, 32))
        self.stem = nn.Conv2d(3, wide, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleList((nn.Conv2d(wide, wide, 3, padding=1), nn.Conv2d(wide, wide, size)))
            for size in (1 for _ in range(draw.randint(2, 3)))
        )
        self.up, self.down = nn.Linear(wide, 8 * wide), nn.Linear(8 * wide, wide)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for first, second in self.blocks:
            x = torch.relu(x + second(torch.relu(first(x))))
        x = F.max_pool2d(x, 2).flatten(2).transpose(1, 2)
        return x + self.down(F.gelu(self.up(x)))


class TwoTowers(nn.Module):
    """An image and a text, each by a tower, and how the parts of one fit those of the other."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        wide, self.words = draw.choice((16, 24, 32)), draw.choice((48, 96))
        self.convs = nn.ModuleList(
            nn.Conv2d(3 if n == 0 else wide, wide, 3, padding=1) for n in range(draw.randint(2, 3))
        )
        sizes = [64, *(draw.choice((128, 192)) for _ in range(draw.randint(1, 3))), wide]
        self.layers = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
        self.head = nn.Linear(64, 48)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            image = torch.relu(conv(image))
        for layer in self.layers:
            text = torch.tanh(layer(text))
        image = F.avg_pool2d(image, 2).flatten(2)
        return self.head(torch.softmax(text @ image, -1))


class Transformer(nn.Module):
    """Attention and a feed-forward, written out."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.wide, self.heads = draw.choice((48, 64, 96)), draw.choice((2, 4))
        self.first, self.second = nn.LayerNorm(self.wide), nn.LayerNorm(self.wide)
        self.q, self.k, self.v, self.out = (nn.Linear(self.wide, self.wide) for _ in range(4))
        self.up = nn.Linear(self.wide, 4 * self.wide)
        self.down = nn.Linear(4 * self.wide, self.wide)

    def _parts(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        q, k, v = self._parts(self.q(y)), self._parts(self.k(y)), self._parts(self.v(y))
        scores = torch.softmax(q @ k.transpose(-1, -2) * 0.2, -1)
        x = x + self.out((scores @ v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.second(x))))


NETS = (Chain, Inception, Residual, TwoTowers, Transformer)
CHEAP = {
    Chain: ("softmax", "max_pool2d"),
    Inception: ("concat", "tanh"),
    Residual: ("gelu", "max_pool2d"),
    TwoTowers: ("softmax", "avg_pool2d"),
    Transformer: ("softmax", "gelu"),
}
"""Operators that a device may lack."""


def drawn(number: int) -> Case:
    """The problem of this number, the same each time."""
    draw = random.Random(f"emulated {number}")
    torch.manual_seed(number)
    make = NETS[number % len(NETS)]
    net = make(draw).eval()
    return Case(number, make.__name__, net, _inputs(net), _devices(draw, number, net))


def _inputs(net: nn.Module) -> tuple[torch.Tensor, ...]:
    if isinstance(net, Transformer):
        return (torch.randn(1, 64, net.wide),)
    image = torch.randn(1, 3, 16, 16)
    return (image, torch.randn(1, net.words, 64)) if isinstance(net, TwoTowers) else (image,)


def _devices(draw: random.Random, number: int, net: nn.Module) -> Emulated:
    if number in AT_ONCE:
        cores = sorted(os.sched_getaffinity(0))
        names = [f"cpu@{core}" for core in cores[:2]]
    else:
        count = 2 if number in LIMITED[-2:] else draw.choice((2, 2, 3))
        names = ["cpu", "cpu:1", "cpu:2"][:count]
    kinds = [_for_products, _for_images, _for_both]
    draw.shuffle(kinds)
    speeds = {name: kind(draw) for name, kind in zip(names[1:], kinds, strict=False)}
    links = tuple(
        Link(a, b, 10 ** draw.uniform(-4.3, -3.5), 10 ** draw.uniform(7.7, 9.3))
        for a in names
        for b in names
        if a != b
    )
    memory = {names[1]: draw.uniform(0.5, 0.9)} if number in LIMITED else {}
    if number in LIMITED[-2:]:
        memory[names[0]] = draw.uniform(0.85, 0.95)
    refused = {names[-1]: draw.choice(CHEAP[type(net)])} if draw.random() < 0.4 else {}
    return Emulated({names[0]: Speed(), **speeds}, links, memory, refused)


def _for_products(draw: random.Random) -> Speed:
    return Speed(draw.uniform(0.15, 0.5), draw.uniform(1.5, 4), draw.uniform(1.5, 4))


def _for_images(draw: random.Random) -> Speed:
    return Speed(draw.uniform(1.5, 4), draw.uniform(0.15, 0.5), draw.uniform(0.6, 2))


def _for_both(draw: random.Random) -> Speed:
    return Speed(draw.uniform(0.3, 0.8), draw.uniform(0.3, 0.8), draw.uniform(1.5, 5))
