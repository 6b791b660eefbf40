"""What the GPU benchmark runs: networks of the benchmark, and single kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from burnish.models import bench_nets


@dataclass(frozen=True)
class Case:
    """A model by name, in a float type; ``flops`` of a call for kernels alone, else 0; ``arch``
    where it is built for that alone."""

    name: str
    dtype: str
    make: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]
    kernel: bool = False
    flops: int = 0
    arch: str = ""

    def load(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        """The model and example inputs, on the CPU; the same at every call."""
        model, inputs = self.make()
        dtype = getattr(torch, self.dtype)
        return model.to(dtype).eval(), tuple(
            x.to(dtype) if x.is_floating_point() else x for x in inputs
        )


class Product(nn.Module):
    """``x [..., K] @ w [N, K]``, plus a bias, through GELU."""

    def __init__(self, n: int, k: int) -> None:
        super().__init__()
        self.linear = nn.Linear(k, n)
        nn.init.normal_(self.linear.weight, std=k**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(self.linear(x))


class Heads(nn.Module):
    """Products of many small matrices, ``x [B, M, K] @ y [B, N, K]``, as of attention's heads."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y.transpose(1, 2)


class Convolution(nn.Module):
    """A convolution with ReLU, same size out."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
        nn.init.normal_(self.conv.weight, std=(inputs * size * size) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.conv(x))


class Attention(nn.Module):
    """``q [B, M, H, D]`` to ``k, v [B, N, KV, D]``, ``KV`` dividing ``H``: ``whole`` as one
    operator, else as two products with a softmax between them."""

    def __init__(self, causal: bool, whole: bool) -> None:
        super().__init__()
        self.causal, self.whole = causal, whole

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        group = q.shape[1] // k.shape[1]
        if self.whole:
            mixed = nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=self.causal, enable_gqa=group > 1
            )
            return mixed.transpose(1, 2)
        k, v = (x.repeat_interleave(group, 1) if group > 1 else x for x in (k, v))
        scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
        if self.causal:
            seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
            scores = scores.masked_fill(~seen, float("-inf"))
        return (torch.softmax(scores, -1).to(q.dtype) @ v).transpose(1, 2)


def _attention(
    batch: int, heads: int, shared: int, m: int, n: int, depth: int, causal: bool, whole: bool
) -> Case:
    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(0)
        q = torch.randn(batch, m, heads, depth)
        k, v = (torch.randn(batch, n, shared, depth) for _ in range(2))
        return Attention(causal, whole), (q, k, v)

    name = f"attention-{batch}x{heads}of{shared}x{m}x{n}x{depth}"
    name += ("-causal" if causal else "") + ("" if whole else "-in-parts")
    flops = 4 * batch * heads * m * n * depth // (2 if causal else 1)
    return Case(name, "float16", make, True, flops)


class Rows(nn.Module):
    """A residual, layer norm and softmax of rows."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(length)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return nn.functional.softmax(self.norm(x + residual), dim=-1)


def _rows(count: int, length: int) -> Case:
    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(0)
        return Rows(length), (torch.randn(count, length), torch.randn(count, length))

    return Case(f"rows-{count}x{length}", "float32", make, True)


def _product(m: int, n: int, k: int, dtype: str = "float16") -> Case:
    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(0)
        return Product(n, k), (torch.randn(m, k),)

    return Case(f"product-{m}x{n}x{k}", dtype, make, True, 2 * m * n * k)


def _heads(batch: int, m: int, n: int, k: int) -> Case:
    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(0)
        return Heads(), (torch.randn(batch, m, k), torch.randn(batch, n, k))

    return Case(f"heads-{batch}x{m}x{n}x{k}", "float32", make, True, 2 * batch * m * n * k)


def _convolution(batch: int, channels: int, size: int, window: int) -> Case:
    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(0)
        return Convolution(channels, channels, window), (torch.randn(batch, channels, size, size),)

    flops = 2 * batch * size * size * channels * channels * window * window
    name = f"convolution-{batch}x{channels}x{size}x{size}-{window}x{window}"
    return Case(name, "float16", make, True, flops)


def _net(name: str, dtype: str) -> Case:
    return Case(name, dtype, lambda: bench_nets.load(name))


_PORTABLE = (
    _net("mlp-b32", "float32"),
    _net("mlp-b32", "float16"),
    _net("bert-base", "float16"),
    _net("llama-512", "float16"),
    _net("resnet50", "float16"),
    _net("bert-base", "float32"),
    _net("bert-base-b8", "float16"),
    _net("resnet50-b8", "float16"),
    _product(4096, 4096, 4096),
    _product(1024, 3072, 768),
    _product(128, 3072, 768),
    _product(1000, 1000, 1000),
    _product(77, 130, 333),
    _product(1, 4096, 4096),
    _product(1, 4096, 4096, "float32"),
    _product(4, 4096, 4096),
    _product(8, 4096, 4096, "float32"),
    _heads(384, 49, 49, 32),
    _convolution(8, 256, 28, 3),
    _rows(4096, 1024),
    _rows(333, 771),
    _product(512, 512, 8192),
    _product(49, 512, 4608),
    _product(16, 1000, 2048),
    *(
        _attention(*sizes, whole)
        for sizes in (
            (8, 12, 12, 512, 512, 64, False),
            (1, 16, 4, 2048, 2048, 128, True),
            (1, 32, 8, 1, 4096, 128, False),
            (1, 6, 3, 77, 130, 40, False),
        )
        for whole in (True, False)
    ),
)
_BY_WARP_GROUPS = (
    "product-4096x4096x4096",
    "product-1024x3072x768",
    "product-128x3072x768",
    "product-512x512x8192",
    "convolution-8x256x28x28-3x3",
    "bert-base-b8",
    "resnet50-b8",
)
HOPPER = "sm_90a"
CASES = (
    *_PORTABLE,
    *[
        replace(case, arch=HOPPER)
        for case in _PORTABLE
        if case.name in _BY_WARP_GROUPS and case.dtype == "float16"
    ],
)


def case_id(case: Case) -> str:
    return f"{case.name}-{case.dtype}{f'-{case.arch}' if case.arch else ''}"


def runs_on(case: Case, capability: tuple[int, int]) -> bool:
    """Whether a GPU of that compute capability runs the case: those for Hopper alone, only it."""
    return case.arch != HOPPER or capability == (9, 0)
