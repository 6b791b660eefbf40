"""Hypothesis strategies of kernel cases, one a schedule rule or operator family.

Sizes lean to what breaks tiling: 1, primes, one off a power of two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from kernel_support import Case, normal
from tvm import relax

op = relax.op
SMALL = st.sampled_from([1, 1, 2, 3, 4, 5, 7, 8, 11])
SIZES = st.sampled_from([1, 2, 3, 5, 7, 8, 13, 15, 16, 17, 31, 32, 33, 47, 64, 65, 96, 130])
SEEDS = st.integers(0, 999)

# What follows a contraction in the same kernel: Relax and torch, of the result, a bias over the
# last axis and a tensor of the result's shape.
EPILOGUES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "none": (lambda y, b, r: y, lambda y, b, r: y),
    "bias": (lambda y, b, r: op.add(y, b), lambda y, b, r: y + b),
    "relu": (lambda y, b, r: op.nn.relu(op.add(y, b)), lambda y, b, r: torch.relu(y + b)),
    "gelu": (lambda y, b, r: op.nn.gelu(op.add(y, b)), lambda y, b, r: F.gelu(y + b)),
    "silu": (lambda y, b, r: op.nn.silu(y), lambda y, b, r: F.silu(y)),
    "residual": (lambda y, b, r: op.add(op.add(y, b), r), lambda y, b, r: y + b + r),
    "clip": (lambda y, b, r: op.clip(op.add(y, b), 0, 6), lambda y, b, r: (y + b).clamp(0, 6)),
    "bias, then softmax": (
        lambda y, b, r: op.nn.softmax(op.add(y, b), -1),
        lambda y, b, r: torch.softmax(y + b, -1),
    ),
    "two readers": (
        lambda y, b, r: [op.add(y, b), op.tanh(op.multiply(y, b))],
        lambda y, b, r: [y + b, torch.tanh(y * b)],
    ),
}


@st.composite
def gemm(draw: st.DrawFn) -> Case:
    """``x [..., K]`` by a weight, stored ``[N, K]`` or ``[K, N]``."""
    lead = [*draw(st.lists(SMALL, max_size=2)), draw(SIZES)]
    k, n, seed = draw(SIZES), draw(SIZES), draw(SEEDS)
    transposed = draw(st.booleans())
    ours, theirs = EPILOGUES[draw(st.sampled_from(sorted(EPILOGUES)))]
    w = normal(seed, n, k) if transposed else normal(seed, k, n)
    return Case(
        lambda x, r, w, b: ours(op.matmul(x, op.permute_dims(w) if transposed else w), b, r),
        lambda x, r, w, b: theirs(x @ (w.T if transposed else w), b, r),
        {"x": normal(seed + 1, *lead, k), "r": normal(seed + 2, *lead, n)},
        {"l.weight": w, "l.bias": normal(seed + 3, n)},
    )


@st.composite
def batched_matmul(draw: st.DrawFn) -> Case:
    """Both sides are activations, batches broadcast."""
    b, m, k, n, seed = draw(SMALL), draw(SIZES), draw(SIZES), draw(SIZES), draw(SEEDS)
    left, right = draw(st.sampled_from([((b,), (b,)), ((b,), (1,)), ((2, b), (2, b)), ((b,), ())]))
    transposed = draw(st.booleans())

    def last(rank: int) -> list[int]:
        return [*range(rank - 2), rank - 1, rank - 2]

    shape = (*right, n, k) if transposed else (*right, k, n)
    return Case(
        lambda x, y: op.matmul(x, op.permute_dims(y, last(len(shape))) if transposed else y),
        lambda x, y: x @ (y.transpose(-1, -2) if transposed else y),
        {"x": normal(seed, *left, m, k), "y": normal(seed + 1, *shape)},
    )


def _windows(draw: st.DrawFn, most: int = 7) -> dict[str, Any]:
    kernel = [draw(st.sampled_from([1, 1, 2, 3, 3, 5, most])) for _ in range(2)]
    dilation = [draw(st.sampled_from([1, 1, 2])) for _ in range(2)]
    padding = [draw(st.integers(0, 3)) for _ in range(4)]
    strides = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(2)]
    size = []
    for axis in range(2):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        least = max(1, reach - padding[axis] - padding[axis + 2])
        size.append(least + draw(st.integers(0, 9)))
    return {
        "kernel": kernel,
        "dilation": dilation,
        "padding": padding,
        "strides": strides,
        "size": size,
    }


def _torch_pad(padding: list[int]) -> list[int]:
    top, left, bottom, right = padding
    return [left, right, top, bottom]


def _convolution(draw: st.DrawFn, groups: int, each: int, out_each: int) -> Case:
    w, seed = _windows(draw), draw(SEEDS)
    batch = draw(st.sampled_from([1, 1, 2, 3]))
    channels, out = groups * each, groups * out_each
    ours, theirs = EPILOGUES[draw(st.sampled_from(["none", "bias", "relu", "silu", "clip"]))]
    x = normal(seed, batch, channels, *w["size"])
    kernel = normal(seed + 1, out, each, *w["kernel"])
    return Case(
        lambda x, k, b: ours(
            op.nn.conv2d(
                x,
                k,
                strides=w["strides"],
                padding=w["padding"],
                dilation=w["dilation"],
                groups=groups,
            ),
            b,
            None,
        ),
        lambda x, k, b: theirs(
            F.conv2d(
                F.pad(x, _torch_pad(w["padding"])),
                k,
                stride=w["strides"],
                dilation=w["dilation"],
                groups=groups,
            ),
            b,
            None,
        ),
        {"x": x},
        {"c.weight": kernel, "c.bias": normal(seed + 2, out, 1, 1)},
    )


@st.composite
def conv2d(draw: st.DrawFn) -> Case:
    """Dense, in one group or several."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 4]))
    each = draw(st.sampled_from([1, 2, 3, 5, 8, 16, 17] if groups == 1 else [2, 3, 16]))
    out_each = draw(st.sampled_from([1, 2, 7, 16, 24, 33] if groups == 1 else [1, 4, 16, 32]))
    return _convolution(draw, groups, each, out_each)


@st.composite
def depthwise(draw: st.DrawFn) -> Case:
    """One input channel a group, one or two output channels."""
    groups = draw(st.sampled_from([2, 3, 8, 15, 16, 17, 33, 64]))
    return _convolution(draw, groups, 1, draw(st.sampled_from([1, 1, 1, 2])))


@st.composite
def conv1d(draw: st.DrawFn) -> Case:
    k, stride, pad = draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 3)), draw(SMALL)
    channels, out, seed = draw(SMALL), draw(SIZES), draw(SEEDS)
    length = draw(SIZES) + k
    return Case(
        lambda x, w: op.nn.conv1d(x, w, strides=stride, padding=[pad, pad]),
        lambda x, w: F.conv1d(x, w, stride=stride, padding=pad),
        {"x": normal(seed, 2, channels, length)},
        {"w": normal(seed + 1, out, channels, k)},
    )


@st.composite
def conv2d_transpose(draw: st.DrawFn) -> Case:
    k, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    pad = draw(st.integers(0, min(1, k - 1)))
    channels, out, seed = draw(SMALL), draw(SMALL), draw(SEEDS)
    h, w = draw(st.integers(2, 7)), draw(st.integers(2, 7))
    return Case(
        lambda x, y: op.nn.conv2d_transpose(x, y, strides=stride, padding=pad),
        lambda x, y: F.conv_transpose2d(x, y, stride=stride, padding=pad),
        {"x": normal(seed, 1, channels, h, w)},
        {"w": normal(seed + 1, channels, out, k, k)},
    )


@st.composite
def pooling(draw: st.DrawFn) -> Case:
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    stride = [draw(st.integers(1, 3)) for _ in range(2)]
    pad = [draw(st.integers(0, k // 2)) for k in kernel]
    size = [k + draw(st.integers(0, 8)) for k in kernel]
    ceil, count = draw(st.booleans()), draw(st.booleans())
    x = normal(draw(SEEDS), draw(st.integers(1, 2)), draw(SIZES), *size)
    last = draw(st.booleans())
    layout = "NHWC" if last else "NCHW"

    def torch_side(fn: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: fn(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if last else fn(x)

    if draw(st.booleans()):
        return Case(
            lambda x: op.nn.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil, layout=layout),
            torch_side(lambda x: F.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil)),
            {"x": x.transpose(0, 2, 3, 1).copy() if last else x},
        )
    return Case(
        lambda x: op.nn.avg_pool2d(x, kernel, stride, pad, count_include_pad=count, layout=layout),
        torch_side(lambda x: F.avg_pool2d(x, kernel, stride, pad, count_include_pad=count)),
        {"x": x.transpose(0, 2, 3, 1).copy() if last else x},
    )


@st.composite
def adaptive_pooling(draw: st.DrawFn) -> Case:
    size = [draw(st.integers(1, 9)) for _ in range(2)]
    out = [draw(st.integers(1, n)) for n in size]
    return Case(
        lambda x: op.nn.adaptive_avg_pool2d(x, out),
        lambda x: F.adaptive_avg_pool2d(x, out),
        {"x": normal(draw(SEEDS), 2, draw(SIZES), *size)},
    )


def shapes(least: int = 1, most: int = 4) -> st.SearchStrategy[list[int]]:
    return st.lists(SIZES, min_size=least, max_size=most).filter(lambda s: np.prod(s) <= 40_000)


@st.composite
def softmax(draw: st.DrawFn) -> Case:
    shape = draw(shapes())
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    x = normal(draw(SEEDS), *shape) * draw(st.sampled_from([1, 30]))
    if draw(st.booleans()):
        return Case(
            lambda x: op.nn.log_softmax(x, axis), lambda x: F.log_softmax(x, axis), {"x": x}
        )
    return Case(lambda x: op.nn.softmax(x, axis), lambda x: torch.softmax(x, axis), {"x": x})


@st.composite
def normalization(draw: st.DrawFn) -> Case:
    shape = draw(shapes(2))
    count = draw(st.integers(1, min(2, len(shape) - 1)))
    inner = shape[-count:]
    axes = list(range(-count, 0))
    seed = draw(SEEDS)
    x = normal(seed, *shape) + draw(st.sampled_from([0, 3]))
    weights = {"w": normal(seed + 1, *inner), "b": normal(seed + 2, *inner)}
    if draw(st.booleans()):
        return Case(
            lambda x, w, b: op.nn.layer_norm(x, w, b, axes, epsilon=1e-5),
            lambda x, w, b: F.layer_norm(x, inner, w, b, 1e-5),
            {"x": x},
            weights,
            tolerance=1e-4,
        )
    return Case(
        lambda x, w: op.nn.rms_norm(x, w, axes, 1e-5),
        lambda x, w: F.rms_norm(x, inner, w, 1e-5),
        {"x": x},
        {"w": weights["w"]},
    )


@st.composite
def group_norm(draw: st.DrawFn) -> Case:
    groups, each, seed = draw(SMALL), draw(SMALL), draw(SEEDS)
    spatial = draw(st.lists(SMALL, min_size=1, max_size=2))
    channels = groups * each
    return Case(
        lambda x, w, b: op.nn.group_norm(
            x, w, b, groups, 1, list(range(2, 2 + len(spatial))), epsilon=1e-3
        ),
        lambda x, w, b: F.group_norm(x, groups, w, b, 1e-3),
        {"x": normal(seed, 2, channels, *spatial)},
        {"w": normal(seed + 1, channels), "b": normal(seed + 2, channels)},
        tolerance=1e-4,
    )


@st.composite
def reduction(draw: st.DrawFn) -> Case:
    shape = draw(shapes())
    rank = len(shape)
    axes = sorted(draw(st.sets(st.integers(0, rank - 1), min_size=1)))
    keep = draw(st.booleans())
    # Around one: a sum near zero of large terms has no relative error to speak of.
    x = normal(draw(SEEDS), *shape) + 1
    name = draw(st.sampled_from(["sum", "mean", "max", "min", "variance", "std", "prod"]))
    theirs: dict[str, Callable[..., Any]] = {
        "sum": lambda x: x.sum(axes, keepdim=keep),
        "mean": lambda x: x.mean(axes, keepdim=keep),
        "max": lambda x: x.amax(axes, keepdim=keep),
        "min": lambda x: x.amin(axes, keepdim=keep),
        "variance": lambda x: x.var(axes, correction=0, keepdim=keep),
        "std": lambda x: x.std(axes, correction=0, keepdim=keep),
    }
    if name == "prod":
        axis = axes[0]
        x = 1 + (x - 1) * np.float32(0.01)
        return Case(
            lambda x: op.prod(x, axis, keep), lambda x: x.prod(axis, keepdim=keep), {"x": x}
        )
    return Case(lambda x: getattr(op, name)(x, axes, keep), theirs[name], {"x": x})


UNARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "exp": (op.exp, torch.exp),
    "tanh": (op.tanh, torch.tanh),
    "sigmoid": (op.sigmoid, torch.sigmoid),
    "erf": (op.erf, torch.erf),
    "gelu": (op.nn.gelu, F.gelu),
    "silu": (op.nn.silu, F.silu),
    "abs sqrt": (lambda x: op.sqrt(op.abs(x)), lambda x: x.abs().sqrt()),
    "log": (lambda x: op.log(op.abs(x)), lambda x: x.abs().log()),
    "square": (op.square, torch.square),
    "relu": (op.nn.relu, torch.relu),
    "negative": (op.negative, torch.neg),
    "floor": (op.floor, torch.floor),
    "cos": (op.cos, torch.cos),
}
BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "add": (op.add, torch.add),
    "subtract": (op.subtract, torch.sub),
    "multiply": (op.multiply, torch.mul),
    "maximum": (op.maximum, torch.maximum),
    "where": (
        lambda a, b: op.where(op.greater(a, b), a, b),
        lambda a, b: torch.where(a > b, a, b),
    ),
}


@st.composite
def elementwise(draw: st.DrawFn) -> Case:
    """A chain of unary and broadcast binary operators."""
    shape = draw(shapes())

    def part() -> list[int]:
        kept = [n if draw(st.booleans()) else 1 for n in shape]
        return kept[draw(st.integers(0, len(shape) - 1)) :]

    seed = draw(SEEDS)
    inputs = {"x": normal(seed, *shape)}
    inputs |= {f"y{i}": normal(seed + i + 1, *part()) for i in range(draw(st.integers(0, 2)))}
    plan = [draw(st.sampled_from(sorted(UNARY))) for _ in range(draw(st.integers(1, 2)))]
    joins = [draw(st.sampled_from(sorted(BINARY))) for _ in range(len(inputs) - 1)]

    def chain(side: int) -> Callable[..., Any]:
        def apply(x: Any, *ys: Any) -> Any:
            x = UNARY[plan[0]][side](x)
            for name, y in zip(joins, ys, strict=True):
                x = BINARY[name][side](x, y)
            return UNARY[plan[-1]][side](x) if len(plan) > 1 else x

        return apply

    # A chain may feed exp with what exp gave: the inputs are kept near zero.
    inputs = {name: value * np.float32(0.5) for name, value in inputs.items()}
    if {"floor", "where"} & {*plan, *joins}:
        # A step's place depends on the last bit of what comes before it.
        plan = [name if name in ("floor", "abs sqrt") else "negative" for name in plan[:1]]
        joins = [name if name in ("maximum", "where") else "maximum" for name in joins]
    return Case(chain(0), chain(1), inputs, tolerance=1e-4)


@st.composite
def layout(draw: st.DrawFn) -> Case:
    """Operators that only move elements, alone or fused with a map."""
    shape = draw(shapes(2))
    rank, seed = len(shape), draw(SEEDS)
    x = normal(seed, *shape)
    order = draw(st.permutations(range(rank)))
    axis = draw(st.integers(0, rank - 1))
    size = shape[axis]
    low = draw(st.integers(0, size - 1))
    high = draw(st.integers(low + 1, size))
    step = draw(st.integers(1, 3))
    pads = [draw(st.integers(0, 3)) for _ in range(2 * rank)]
    repeats = [draw(st.integers(1, 2)) for _ in range(rank)]
    other = list(shape)
    other[axis] = draw(SMALL)
    y = normal(seed + 1, *other)
    mine = [slice(None)] * rank
    mine[axis] = slice(low, high, step)
    backward = [w for place in reversed(range(rank)) for w in pads[2 * place : 2 * place + 2]]
    indices = np.random.default_rng(seed).integers(0, size, draw(shapes(1, 2)))
    cases = {
        "permute": Case(
            lambda x: op.permute_dims(x, list(order)), lambda x: x.permute(*order), {"x": x}
        ),
        "permute and map": Case(
            lambda x: op.tanh(op.permute_dims(op.multiply(x, x), list(order))),
            lambda x: torch.tanh((x * x).permute(*order)),
            {"x": x},
        ),
        "slice": Case(
            lambda x: op.strided_slice(x, [axis], [low], [high], [step]),
            lambda x: x[tuple(mine)],
            {"x": x},
        ),
        "pad": Case(
            lambda x: op.nn.pad(x, pads, "constant", 1.5),
            lambda x: F.pad(x, backward, value=1.5),
            {"x": x},
        ),
        "concat": Case(
            lambda x, y: op.concat([x, op.nn.relu(y), x], axis),
            lambda x, y: torch.cat([x, torch.relu(y), x], axis),
            {"x": x, "y": y},
        ),
        "stack": Case(
            lambda x: op.stack([x, op.negative(x)], axis),
            lambda x: torch.stack([x, -x], axis),
            {"x": x},
        ),
        "flip": Case(lambda x: op.flip(x, axis), lambda x: x.flip(axis), {"x": x}),
        "tile": Case(lambda x: op.tile(x, repeats), lambda x: x.repeat(*repeats), {"x": x}),
        "reshape": Case(
            lambda x: op.exp(op.reshape(x, [-1])), lambda x: x.reshape(-1).exp(), {"x": x}
        ),
        "take": Case(
            lambda x, i: op.take(x, i, axis, mode="clip"),
            lambda x, i: x.index_select(axis, i.flatten()).reshape(
                *x.shape[:axis], *i.shape, *x.shape[axis + 1 :]
            ),
            {"x": x, "i": indices},
        ),
        "gather": Case(
            lambda x, i: op.gather_elements(x, i, axis),
            lambda x, i: x.gather(axis, i),
            {"x": x, "i": np.random.default_rng(seed).integers(0, size, other)},
        ),
        "broadcast": Case(
            lambda x: op.broadcast_to(op.expand_dims(x, axis), [*shape[:axis], 3, *shape[axis:]]),
            lambda x: x.unsqueeze(axis).expand(*shape[:axis], 3, *shape[axis:]),
            {"x": x},
        ),
        "triangle": Case(lambda x: op.triu(x, 1), lambda x: x.triu(1), {"x": x}),
    }
    return cases[draw(st.sampled_from(sorted(cases)))]


@st.composite
def resize(draw: st.DrawFn) -> Case:
    size = [draw(st.integers(1, 9)) for _ in range(2)]
    out = [draw(st.integers(1, 14)) for _ in range(2)]
    x = normal(draw(SEEDS), draw(st.integers(1, 2)), draw(SMALL), *size)
    if draw(st.booleans()):
        return Case(
            lambda x: op.image.resize2d(
                x,
                relax.ShapeExpr(out),
                layout="NCHW",
                method="nearest_neighbor",
                coordinate_transformation_mode="asymmetric",
                rounding_method="floor",
            ),
            lambda x: F.interpolate(x, out, mode="nearest"),
            {"x": x},
        )
    return Case(
        lambda x: op.image.resize2d(x, relax.ShapeExpr(out), layout="NCHW", method="linear"),
        lambda x: F.interpolate(x, out, mode="bilinear", align_corners=False),
        {"x": x},
        tolerance=1e-4,
    )


@st.composite
def ordering(draw: st.DrawFn) -> Case:
    """Sorting and scans, whose kernels keep their own loops."""
    shape = draw(shapes(1, 3))
    axis = draw(st.integers(0, len(shape) - 1))
    x = normal(draw(SEEDS), *shape)
    down = draw(st.booleans())
    k = draw(st.integers(1, shape[axis]))
    cases = {
        "cumsum": Case(lambda x: op.cumsum(x, axis), lambda x: x.cumsum(axis), {"x": x}),
        "sort": Case(
            lambda x: op.sort(x, axis, down), lambda x: x.sort(axis, descending=down)[0], {"x": x}
        ),
        "argsort": Case(
            lambda x: op.argsort(x, axis, down, "int64"),
            lambda x: x.argsort(axis, descending=down),
            {"x": x},
        ),
        "topk": Case(
            lambda x: op.topk(x, k, axis, "values", True),
            lambda x: x.topk(k, axis)[0],
            {"x": x},
        ),
        "argmax": Case(lambda x: op.argmax(x, axis), lambda x: x.argmax(axis), {"x": x}),
        "argmin": Case(
            lambda x: op.argmin(x, axis, True), lambda x: x.argmin(axis, keepdim=True), {"x": x}
        ),
    }
    return cases[draw(st.sampled_from(sorted(cases)))]


@st.composite
def attention(draw: st.DrawFn) -> Case:
    b, h, seed = draw(st.integers(0, 2)), draw(st.sampled_from([1, 2, 3, 6])), draw(SEEDS)
    # Heads are repeated by a reshape, to which an extent of 0 means "as it was".
    group = draw(st.sampled_from([g for g in (1, 1, 2, 3) if h % g == 0 and (b or g == 1)]))
    m = draw(st.sampled_from([1, 2, 3, 5, 6, 7, 16, 17, 37, 64]))
    n = draw(st.sampled_from([1, 2, 3, 5, 15, 16, 17, 33, 63, 64, 65, 100, 197, 400, 513]))
    d = draw(st.sampled_from([1, 3, 8, 16, 20, 32, 33, 64, 80, 256]))
    e = draw(st.sampled_from([1, 5, 16, 20, 40, 64, 80, 256]))
    # Aligned to the bottom right, a query before the first key sees none: not defined.
    causal = draw(st.sampled_from([None, "TopLeft", *(["BottomRight"] if n >= m else [])]))
    scale = draw(st.sampled_from([None, 0.3]))
    inputs = {
        "q": normal(seed, b, m, h, d),
        "k": normal(seed + 1, b, n, h // group, d),
        "v": normal(seed + 2, b, n, h // group, e),
    }
    if draw(st.booleans()):
        shape = [size if draw(st.booleans()) else 1 for size in (b, h, m)]
        inputs["bias"] = normal(seed + 3, *shape, n)

    def make(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
        k, v = (repeated(x, group) for x in (k, v))
        return op.nn.attention(q, k, v, bias, scale, causal)

    def expected(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
        k, v = (x.repeat_interleave(group, 2) for x in (k, v))
        return attention_reference(q, k, v, bias, causal, scale)

    return Case(make, expected, inputs)


def repeated(x: Any, group: int) -> Any:
    """``[B, N, KV, D] -> [B, N, KV * group, D]``, as importers write it."""
    if group == 1:
        return x
    b, n, kv, d = x.ty.shape
    wide = op.broadcast_to(op.expand_dims(x, [3]), [b, n, kv, group, d])
    return op.reshape(wide, [b, n, kv * group, d])


def attention_reference(
    q: Any, k: Any, v: Any, bias: Any = None, causal: str | None = None, scale: float | None = None
) -> Any:
    """``[B, M, H, D]`` and so on, in float64; rows that see no key are zeros."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if causal:
        m, n = scores.shape[-2:]
        shift = 0 if causal == "TopLeft" else n - m
        scores = scores.masked_fill(~torch.ones(m, n).tril(shift).bool(), -torch.inf)
    return (torch.softmax(scores, -1).nan_to_num(0) @ v).transpose(1, 2)


FAMILIES: dict[str, st.SearchStrategy[Case]] = {
    "gemm": gemm(),
    "batched matmul": batched_matmul(),
    "conv2d": conv2d(),
    "depthwise": depthwise(),
    "conv1d": conv1d(),
    "conv2d transpose": conv2d_transpose(),
    "pooling": pooling(),
    "adaptive pooling": adaptive_pooling(),
    "softmax": softmax(),
    "normalization": normalization(),
    "group norm": group_norm(),
    "reduction": reduction(),
    "elementwise": elementwise(),
    "layout": layout(),
    "resize": resize(),
    "ordering": ordering(),
    "attention": attention(),
}
