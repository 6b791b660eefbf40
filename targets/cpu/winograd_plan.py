"""When Winograd pays, and how a convolution is cut into tasks: the numbers of its rule.

Costs are cycles of one core, summed over all cores:

1. Direct convolution: register tiles as in :mod:`burnish.targets.cpu.tiling`, for each row of
   outputs, input channel and tap.
2. Winograd's products: the same register tiles, for each of the ``n * n`` planes and each input
   channel.
3. Winograd's transforms: ``TRANSFORM`` cycles a vector and value of a tile, in and out. Images
   that tiles do not cover evenly pay for whole tiles.
4. Weights come from main memory at every call, since those of a whole network do not stay in the
   caches; all cores together read ``bandwidth`` bytes a cycle, while they compute. Winograd's
   are ``n * n / 9`` times larger: that is what late layers are bound by.
5. Each form is taken where it costs less than ``GAIN`` of the more exact ones: direct, 2x2, 4x4.

On two Zen 5 cores the costs are within a sixth of the times measured for layers from 56x56x64 to
7x7x512 and 112x112x16, in chains whose weights no cache holds. Calls of under 10 microseconds take
up to a third longer, 4x4 on weights that the last cache holds half as long.
"""

from __future__ import annotations

from dataclasses import dataclass

from burnish.targets.cpu.tiling import choose_rows, choose_width, fewest_cycles
from burnish.targets.target import CpuTarget
from burnish.targets.winograd import F2, F4, Winograd

TRANSFORM = 4.0
GAIN = 0.9
LINE = 16
"""Floats of a cache line."""


@dataclass(frozen=True)
class Convolution:
    """A 3x3 convolution of stride 1 over NHWC data; ``images`` is ``None`` for an open batch.

    ``padding`` is (top, left, bottom, right).
    """

    images: int | None
    height: int
    width: int
    depth: int
    channels: int
    padding: tuple[int, int, int, int]

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        top, left, bottom, right = self.padding
        return self.height + top + bottom - 2, self.width + left + right - 2


@dataclass(frozen=True)
class Layout:
    """How one convolution is cut up.

    Tiles of all images are numbered in one row, ``total`` of them; where the batch is open,
    ``total`` are those of one image, and there are so many for each. A task takes ``rows`` tiles.
    With ``shared``, all inputs are transformed first, and a task takes one block of ``nb`` output
    channels, so that each core streams a part of the weights; else a task transforms its own
    tiles, and streams all weights, which are small.
    """

    conv: Convolution
    algorithm: Winograd
    nb: int
    down: int
    across: int
    total: int
    rows: int
    shared: bool

    @property
    def blocks(self) -> int:
        """Blocks of output channels."""
        return -(-self.conv.channels // self.nb)

    @property
    def tasks(self) -> int:
        """Blocks of tiles; the last may take some of the one before it once more."""
        return -(-self.total // self.rows)

    @property
    def pitch(self) -> int:
        """Floats between the planes of the transformed input."""
        return _odd_lines((self.total if self.shared else self.rows) * self.conv.depth)

    @property
    def pitch_out(self) -> int:
        """Floats between the planes of the products."""
        return _odd_lines(self.rows * self.nb)

    def register_rows(self, target: CpuTarget) -> int:
        """``MR``: rows of a register tile."""
        vectors = -(-self.nb // target.lanes)
        return min(choose_rows(self.rows, vectors, target), self.rows)


def layout(conv: Convolution, algorithm: Winograd, target: CpuTarget) -> Layout:
    """The data and products of a task take up to three quarters of a core's cache."""
    m, products = algorithm.m, algorithm.n**2
    down, across = (-(-size // m) for size in conv.outputs)
    total = (conv.images or 1) * down * across
    nb = choose_width(total, conv.channels, target)
    weights = products * conv.depth * conv.channels * 4
    shared = weights > 4 * target.l2
    most = max(1, target.l2 * 3 // 4 // (products * (conv.depth + nb) * 4))
    count = -(-total // most)
    if not shared:
        count = -(-count // target.threads) * target.threads
    return Layout(conv, algorithm, nb, down, across, total, -(-total // count), shared)


def choose(conv: Convolution, target: CpuTarget) -> Winograd | None:
    """The algorithm that costs least by the rules above; ``None`` is direct convolution."""
    if min(conv.outputs) < 1 or not conv.depth or not conv.channels or conv.images == 0:
        return None
    best, least = None, direct_cycles(conv, target)
    for algorithm in (F2, F4):
        cycles = winograd_cycles(conv, algorithm, target)
        if cycles < GAIN * least:
            best, least = algorithm, cycles
    return best


def direct_cycles(conv: Convolution, target: CpuTarget) -> float:
    """Rules 1 and 4."""
    height, width = conv.outputs
    nb = choose_width(width, conv.channels, target)
    steps = (conv.images or 1) * height * -(-conv.channels // nb) * 9 * conv.depth
    cycles = steps * fewest_cycles(width, -(-nb // target.lanes), target)
    return _streamed(cycles, 9 * conv.depth * conv.channels * 4, target)


def winograd_cycles(conv: Convolution, algorithm: Winograd, target: CpuTarget) -> float:
    """Rules 2 to 4."""
    cut = layout(conv, algorithm, target)
    products = algorithm.n**2
    steps = cut.tasks * cut.blocks * products * conv.depth
    multiply = steps * fewest_cycles(cut.rows, -(-cut.nb // target.lanes), target)
    vectors = -(-conv.depth // target.lanes) + -(-conv.channels // target.lanes)
    transform = cut.tasks * cut.rows * products * vectors * TRANSFORM
    return _streamed(multiply + transform, products * conv.depth * conv.channels * 4, target)


def _streamed(cycles: float, weights: int, target: CpuTarget) -> float:
    """Rule 4."""
    return max(cycles, weights / target.bandwidth * target.threads)


def _odd_lines(floats: int) -> int:
    """Filled up to an odd number of cache lines, so that planes do not share cache sets."""
    lines = -(-floats // LINE)
    return (lines + 1 - lines % 2) * LINE
