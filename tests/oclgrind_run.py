"""``python oclgrind_run.py NAME...``: small nets through OpenCL, one line of JSON each.

Run by ``tests/targets/opencl/test_sanitizer.py`` on Oclgrind, which notes what a real device does
not: accesses outside buffers, and races of work items.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
import tvm
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from small_nets import Block, Classifier, Mlp, made

import burnish
from burnish.targets.choose import choose_target
from burnish.targets.opencl import runtime
from opencl_support import kernel, load, zeros


class Images(nn.Module):
    """Strided, dilated, grouped and transposed convolutions, pooling, norms and resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 10, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, 10)
        self.wide = nn.Conv2d(10, 6, 3, dilation=2, groups=2)
        self.up = nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d((2, 3))

    def forward(self, x):
        x = nn.functional.silu(self.norm(self.first(x)))
        x = self.up(nn.functional.max_pool2d(self.wide(x), 3, 2, 1))
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.pool(x), torch.log_softmax(x.flatten(1), -1)


class Orders(nn.Module):
    """What is not a map: running sums, sorting, picking, and shapes."""

    def forward(self, x):
        ordered = torch.topk(x, 3, dim=-1)
        picked = torch.gather(x, 1, ordered.indices)
        spread = torch.cat([torch.cumsum(x, 1), picked], 1).transpose(0, 1).reshape(-1)
        return ordered.values, ordered.indices, spread, x.std(1), torch.sort(x, 1).values


class Attentions(nn.Module):
    """One query, and queries that share keys under a causal mask."""

    def forward(self, q, k, v):
        attend = nn.functional.scaled_dot_product_attention
        return attend(q[:, :, :1], k, v), attend(q, k[:, :1], v[:, :1], is_causal=True)


class Steps(nn.Module):
    """Recurrences, of which one goes both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 9, bidirectional=True)
        self.gru = nn.GRU(18, 20)

    def forward(self, x):
        return self.gru(self.lstm(x)[0])[0]


class Decoder(nn.Module):
    """A step of decoding: products of one row of odd sizes, a query's attention, small heads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(44, 32), nn.Linear(32, 37)

    def forward(self, x, keys):
        query = self.first(x).reshape(1, 2, 1, 16)
        mixed = nn.functional.scaled_dot_product_attention(query, keys, keys)
        return self.last(mixed.reshape(1, 32)), keys[0] @ keys[0].transpose(1, 2)


IN_FOURS = replace(choose_target("opencl"), vector=4)
NETS = {
    "steps": lambda: (made(Steps), (torch.randn(4, 2, 5),), {}),
    "mlp": lambda: (made(Mlp), (torch.randn(7, 20),), {}),
    "classifier": lambda: (made(Classifier), (torch.randn(1, 3, 13, 11),), {}),
    "transformer": lambda: (
        made(Block),
        (torch.randint(0, 50, (2, 7)), (torch.arange(7) < torch.tensor([[7], [4]])).long()),
        {},
    ),
    "images": lambda: (made(Images), (torch.randn(1, 3, 13, 11),), {}),
    "attentions": lambda: (
        Attentions(),
        (torch.randn(1, 2, 33, 12), torch.randn(1, 2, 40, 12), torch.randn(1, 2, 40, 12)),
        {},
    ),
    "orders": lambda: (Orders(), (torch.randn(3, 17),), {}),
    "decoder": lambda: (made(Decoder), (torch.randn(1, 44), torch.randn(1, 2, 13, 16)), {}),
    "vectors": lambda: (made(Mlp), (torch.randn(9, 20),), {"target": IN_FOURS}),
    "int4": lambda: (made(Mlp), (torch.randn(3, 20),), {"quantize": "int4", "do_no_harm": False}),
    "int8": lambda: (made(Mlp), (torch.randn(3, 20),), {"quantize": "int8", "do_no_harm": False}),
}


def planted() -> None:
    """A write beyond a buffer, and two races: in global and in local memory."""
    index = "get_local_id(0)"
    race = f"__local float s[8]; s[{index}] = {index}; out[{index}] = s[7 - {index}];"
    out = ("handle", "__global float* out")
    for name, body in (
        ("beyond", "out[get_global_id(0)] = 1;"),
        ("global_race", "out[0] = get_global_id(0);"),
        ("local_race", race),
    ):
        load(kernel(body, out, name=name))[name](zeros((8,), "float32"), 2, 8)
    tvm.opencl(0).sync()


def main(names: list[str]) -> None:
    torch.manual_seed(0)
    runtime.ensure()
    runtime.cache_programs(None)  # what is built here is Oclgrind's own
    if names == ["planted"]:
        return planted()
    for name in names or NETS:
        start = time.perf_counter()
        model, inputs, settings = NETS[name]()
        compiled = burnish.compile(model, inputs, **{"target": "opencl", **settings})
        if "quantize" in settings:  # what rounding changes is not in question here
            model = burnish.compile(model, inputs, target="cpu", **settings)
        made_s = time.perf_counter() - start
        got, want = flat(compiled(*inputs)), flat(model(*inputs))
        worst = max(difference(a, b) for a, b in zip(got, want, strict=True))
        took = {"compile_s": made_s, "run_s": time.perf_counter() - start - made_s}
        print(json.dumps({"net": name, "difference": worst, **took}), flush=True)


def flat(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in flat(part)]


def difference(got: torch.Tensor, want: torch.Tensor) -> float:
    """max|got - want| / max|want|."""
    got, want = got.double(), want.double()
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-9))


if __name__ == "__main__":
    with torch.no_grad():
        main(sys.argv[1:])
