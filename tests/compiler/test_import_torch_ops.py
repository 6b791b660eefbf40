"""Each operator against eager, in one module a theme; the traps are those TVM's own fall into."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from import_support import compiled, worst
from torch import Tensor, nn

from burnish.compiler.importers import import_model

torch.manual_seed(0)
IMAGE = torch.randn(2, 8, 7, 9)
SEQUENCE = torch.randn(2, 5, 16)
INDEX = torch.randint(0, 5, (2, 5))
MASK = torch.rand(2, 5, 16) > 0.5


class Calls(nn.Module):
    """A function of tensors, and layers, as one module: outputs in one tuple."""

    def __init__(self, function: Callable | None = None, *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        outputs = tuple(layer(*args) for layer in self.layers)
        return outputs + (self.function(*args) if self.function else ())


def activations(x: Tensor) -> tuple[Tensor, ...]:
    return (
        F.gelu(x),
        F.gelu(x, approximate="tanh"),
        F.silu(x),
        F.hardswish(x),
        F.hardsigmoid(x),
        F.relu6(x),
        F.leaky_relu(x, 0.2),
        F.elu(x),
        F.selu(x),  # an elu with two scales, which TVM's converter leaves out
        F.celu(x, 0.7),
        F.softplus(x),
        F.mish(x),
        F.hardtanh(x, -0.3, 0.4),
        F.glu(x),
        F.softmax(x, 1),
        F.log_softmax(x, 1),
        F.softmax(x, -1, dtype=torch.float64),
        torch.logsumexp(x, 1),
    )


def promotion(i: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """TVM's converters compute all of these in the dtype of one operand."""
    return (
        i * 0.5,
        i / 2,
        i // 2,
        -i % 3,
        i + True,
        i**2,
        b.cumsum(1),
        b.sum(1),
        torch.add(i, i, alpha=3),
        torch.sub(i, 1, alpha=2),
        i.clamp(min=1),
        i.clamp(1, 3),
        i.float().half() @ i.float().half().T,
        torch.where(i > 2, i, 0.5),
    )


def indexing(x: Tensor, i: Tensor) -> tuple[Tensor, ...]:
    return (
        x[:, -1],  # TVM's converter reads before the tensor
        x[..., -3:],
        x[:, 1:4:2],
        x[:, :100],
        x[:, i[0]],
        x.index_select(1, i[0]),
        torch.gather(x, 1, i[:, :, None].expand(-1, -1, 16)),
        x.unbind(1)[2],
        torch.cat([x, x], 1),
        torch.stack([x, x], 1),
        *x.split(2, 1),
        *x.chunk(2, -1),
        x.flip(1),
        x.roll(1, 1),
        x.tril(),
        F.one_hot(i, 5),
        F.pad(x, (1, 2, 2, 1)),
        F.embedding(i, x[0]),
    )


def reductions(x: Tensor) -> tuple[Tensor, ...]:
    return (
        x.var(1),
        x.std(1),
        x.mean((1, 2)),
        x.amax(1),
        x.amin(-1),
        x.argmax(1),
        *x.max(1),
        *x.min(1),
        x.prod(1),
        x.norm(dim=1),
        x.norm(),
        x.norm(p=1, dim=1),
        *x.topk(3, -1),
        x.cumsum(1),
        F.normalize(x, dim=1),
    )


def arithmetic(x: Tensor) -> tuple[Tensor, ...]:
    return (
        x.pow(2),
        x.pow(3),
        x.abs().pow(0.5),
        x.abs().rsqrt(),
        x.sqrt(),
        x.round(),
        x.remainder(0.3),
        torch.floor_divide(x, 0.3),
        torch.div(x, 0.3, rounding_mode="trunc"),
        torch.rsub(x, 1, alpha=2),
        x @ x.transpose(1, 2),
        torch.baddbmm(x @ x.transpose(1, 2), x, x.transpose(1, 2), beta=0.5, alpha=2),
        torch.addmm(x[0] @ x[0].T, x[0], x[0].T, beta=0.5, alpha=2.0),
        torch.einsum("bij,bkj->bik", x, x),
        x + torch.arange(16),
    )


def images(x: Tensor) -> tuple[Tensor, ...]:
    return (
        F.max_pool2d(x, 3, 2, 1),
        F.max_pool2d(x, 2),
        F.avg_pool2d(x, 3, 2, 1),
        F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        F.adaptive_avg_pool2d(x, (1, 1)),
        F.adaptive_avg_pool2d(x, (3, 4)),
        F.interpolate(x, scale_factor=2),
        F.interpolate(x, size=(10, 5)),
        F.interpolate(x, scale_factor=2, mode="bilinear"),
        F.interpolate(x, size=(10, 5), mode="bilinear"),
        F.interpolate(x, size=(10, 5), mode="bilinear", align_corners=True),
        F.pixel_shuffle(x, 2),
    )


def attentions(x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    square = mask[:, :, :5].clone()
    heads, groups = x.view(2, 5, 4, 4), x.view(2, 5, 4, 4)[:, :1]
    attend = F.scaled_dot_product_attention
    return (
        attend(x, x, x),
        attend(x[0], x[0], x[0], scale=0.3),
        attend(heads, heads, heads, is_causal=True),
        attend(heads[:, :, :2], heads, heads, is_causal=True),
        attend(heads, groups, groups, enable_gqa=True),
        attend(heads[None], heads[None], heads[None]),
        attend(x, x, x, attn_mask=square),
        attend(x, x, x, attn_mask=square & False),  # nothing to attend to: zeros
        attend(x, x, x, attn_mask=x[:, :, :5]),
    )


def by_tensors(x: Tensor, i: Tensor) -> tuple[Tensor, ...]:
    """Indices that broadcast, are apart from each other, and count from the end."""
    below = i - 3
    return (
        x[:, below, i],
        x[i % 2, :, i],
        x[i[0] % 2, i[1]],
        x[:, :, i],
        x[..., below[0]],
        x[below[:, :1] % 2, below[:, None]],
        torch.histc(i.float(), 5, 0, 4),
        torch.histc(i.float(), 3, 1, 3),
        x.repeat(2, 1, 3),
        x.new_full((2, 2), 3) + torch.zeros(2, 2),
    )


def samples(x: Tensor) -> tuple[Tensor, ...]:
    grid = x[:, :2, :6].permute(0, 2, 3, 1)
    return tuple(
        F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=corners)
        for mode in ("bilinear", "nearest")
        for padding in ("zeros", "border")
        for corners in (False, True)
    )


def trained(layer: nn.Module) -> nn.Module:
    """The layer with statistics and weights that are no defaults."""
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    return layer


LAYERS = {
    "image layers": (
        Calls(
            None,
            nn.Conv2d(8, 6, 3, padding="same", dilation=2),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
            nn.Conv2d(8, 6, (3, 1), padding=(1, 0), bias=False),
            nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"),
            nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1),
            nn.ConvTranspose2d(8, 4, 3, stride=2, groups=2),
            trained(nn.BatchNorm2d(8)),
            nn.BatchNorm2d(8, affine=False),
            trained(nn.InstanceNorm2d(8, affine=True)),
            trained(nn.GroupNorm(4, 8)),
            nn.GroupNorm(4, 8, affine=False),
        ),
        (IMAGE,),
    ),
    "sequence layers": (
        Calls(
            None,
            nn.Conv1d(5, 4, 3, padding=1),
            nn.ConvTranspose1d(5, 4, 3, stride=2),
            trained(nn.LayerNorm((5, 16))),
            nn.LayerNorm(16, elementwise_affine=False),
            trained(nn.LayerNorm(16, bias=False)),
            trained(nn.RMSNorm(16)),
            nn.RMSNorm(16, eps=1e-3, elementwise_affine=False),
            nn.Linear(16, 3, bias=False),
            nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        ),
        (SEQUENCE,),
    ),
    "activations": (Calls(activations), (SEQUENCE,)),
    "promotion": (Calls(promotion), (INDEX, MASK)),
    "indexing": (Calls(indexing), (SEQUENCE, INDEX)),
    "reductions": (Calls(reductions), (SEQUENCE,)),
    "arithmetic": (Calls(arithmetic), (SEQUENCE,)),
    "images": (Calls(images), (IMAGE,)),
    "by tensors": (Calls(by_tensors), (SEQUENCE, INDEX)),
    "samples": (Calls(samples), (IMAGE,)),
    "attentions": (Calls(attentions), (SEQUENCE, MASK)),
}


@pytest.mark.parametrize("theme", LAYERS)
def test_operators_match_eager(theme: str) -> None:
    model, args = LAYERS[theme]
    model.eval()
    with torch.no_grad():
        want = [np.asarray(t) for t in torch.utils._pytree.tree_leaves(model(*args))]
    got = compiled(import_model(model, args).mod)(*(t.numpy() for t in args))
    half = any(a.dtype == np.float16 for a in want)
    assert worst(got, want) < (2e-3 if half else 1e-5)
