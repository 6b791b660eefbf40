"""The networks that benchmarks run, by name: random weights from a seed, or the zoo's real ones.

Only their speed is of interest, but values are as in trained networks: activations of order 1,
batch norms that know the statistics of their inputs.
"""

from __future__ import annotations

import difflib
import importlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from burnish.models.zoo import UnknownModel

Loaded = tuple[nn.Module, tuple[Tensor, ...]]


@dataclass(frozen=True)
class BenchNet:
    """One row of the benchmark: rows of a ``group`` count as one model; ``kind`` is its family."""

    name: str
    group: str
    kind: str
    title: str
    make: Callable[[], Loaded]


def load(name: str) -> Loaded:
    """The network called ``name`` in eval mode, with example inputs; the same at every call.

    KeyError for an unknown name; the zoo's errors for networks of the zoo.
    """
    if name not in NETS:
        raise unknown(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = NETS[name].make()
    return model.eval(), inputs


def unknown(name: str) -> UnknownModel:
    """The error for a name that is not in the benchmark, with the names near it."""
    near = difflib.get_close_matches(name, NETS, n=3, cutoff=0.4)
    hint = f"near it: {', '.join(near)}" if near else f"known: {', '.join(NETS)}"
    return UnknownModel(f"no benchmark network {name!r}; {hint}")


def _net(module: str, kind: str, *arguments: Any) -> nn.Module:
    return getattr(importlib.import_module(f"burnish.models.{module}"), kind)(*arguments)


def _pictures(batch: int) -> Tensor:
    return torch.randn(batch, 3, 224, 224)


def _tokens(vocabulary: int, length: int, batch: int = 1) -> Tensor:
    return torch.randint(0, vocabulary, (batch, length))


def _vision(module: str, kind: str, batch: int, *arguments: Any) -> Loaded:
    model = _settled(_drawn(_net(f"nets.{module}", kind, *arguments)), _pictures(4))
    return model, (_pictures(batch),)


def _bert(batch: int) -> Loaded:
    shape = _net("bert", "BertShape", 30522, 768, 12, 12, 3072)
    mask = torch.ones(batch, 128, dtype=torch.int64)
    return _drawn(_net("bert", "Bert", shape)), (_tokens(30522, 128, batch), mask)


def _llama(length: int) -> Loaded:
    shape = _net("llama", "LlamaShape", 32000, 512, 6, 8, 8, 1376, 512)
    return _drawn(_net("llama", "Llama", shape)), (_tokens(32000, length),)


def _mlp() -> Loaded:
    widths = (784, 512, 512, 10)
    parts: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return _drawn(nn.Sequential(*parts[:-1])), (torch.randn(32, widths[0]),)


def _recommender() -> Loaded:
    model = _drawn(_net("nets.recommender", "Recommender"))
    return model, (torch.randn(256, 13), torch.randint(0, 10_000, (256, 26)))


def _lstm() -> Loaded:
    return _drawn(_net("nets.recurrent", "Recurrent")), (torch.randn(1, 64, 256),)


def _zoo(name: str) -> Loaded:
    from burnish.models.zoo import load as load_trained

    entry = load_trained(name)
    return entry.model, tuple(entry.example_inputs)


def _drawn(model: nn.Module) -> nn.Module:
    """The model with weights drawn so that each layer keeps the variance of its input.

    Gains and biases of norms are near 1 and 0 but not on them: nothing may fold away.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.05)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1.0, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    return model


def _settled(model: nn.Module, x: Tensor) -> nn.Module:
    """The model with the statistics of ``x`` in its batch norms."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = None  # the plain mean over all batches, of which there is one
        with torch.no_grad():
            model.train()(x)
    return model


CONVOLUTION, TRANSFORMER, OTHER = "convolution", "transformer", "other"
RESNET18, RESNET50 = ((2, 2, 2, 2), False), ((3, 4, 6, 3), True)

_ROWS = (
    ("resnet18", "ResNet-18", CONVOLUTION, partial(_vision, "resnet", "ResNet", 1, *RESNET18)),
    ("resnet50", "ResNet-50", CONVOLUTION, partial(_vision, "resnet", "ResNet", 1, *RESNET50)),
    ("mobilenetv2", "MobileNetV2", CONVOLUTION, partial(_vision, "mobilenet", "MobileNetV2", 1)),
    ("efficientnet-lite0", "EfficientNet-Lite0", CONVOLUTION, partial(_zoo, "efficientnet-lite0")),
    ("convnext-tiny", "ConvNeXt-tiny", CONVOLUTION, partial(_vision, "convnext", "ConvNeXt", 1)),
    ("vit-s16", "ViT-S/16", TRANSFORMER, partial(_vision, "vit", "ViT", 1)),
    ("bert-base", "BERT-base, 128 tokens", TRANSFORMER, partial(_bert, 1)),
    ("minilm", "MiniLM-L6, 128 tokens", TRANSFORMER, partial(_zoo, "minilm")),
    ("whisper-encoder", "Whisper tiny encoder", TRANSFORMER, partial(_zoo, "whisper-encoder")),
    ("llama-64", "Llama 6 x 512, 64 tokens", TRANSFORMER, partial(_llama, 64)),
    ("llama-512", "Llama 6 x 512, 512 tokens", TRANSFORMER, partial(_llama, 512)),
    ("smollm2", "SmolLM2-135M, 128 tokens", TRANSFORMER, partial(_zoo, "smollm2")),
    ("mlp-b32", "MLP, batch 32", OTHER, _mlp),
    ("dlrm-b256", "DLRM, batch 256", OTHER, _recommender),
    ("lstm", "LSTM 2 x 256, 64 steps", OTHER, _lstm),
    ("resnet50-b8", "ResNet-50", CONVOLUTION, partial(_vision, "resnet", "ResNet", 8, *RESNET50)),
    ("mobilenetv2-b8", "MobileNetV2", CONVOLUTION, partial(_vision, "mobilenet", "MobileNetV2", 8)),
    ("vit-s16-b8", "ViT-S/16", TRANSFORMER, partial(_vision, "vit", "ViT", 8)),
    ("bert-base-b8", "BERT-base, 128 tokens", TRANSFORMER, partial(_bert, 8)),
)


def _net_of(name: str, title: str, kind: str, make: Callable[[], Loaded]) -> BenchNet:
    batch = name.endswith("-b8")
    group = "llama" if name.startswith("llama") else name.removesuffix("-b8")
    return BenchNet(name, group, kind, f"{title}, batch 8" if batch else title, make)


NETS = {row[0]: _net_of(*row) for row in _ROWS}
