"""Hypothesis strategies of what is easily wrong at the edges: NaN, integers, nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from kernel_cases import SEEDS, SIZES, shapes
from kernel_support import Case, normal
from tvm import relax

op = relax.op
Pair = tuple[Callable[..., Any], Callable[..., Any]]


def sprinkled(seed: int, *shape: int) -> np.ndarray:
    """Normal values rounded to tenths (so that some are equal), some infinite, some NaN."""
    rng = np.random.default_rng(seed)
    x = np.round(rng.standard_normal(shape), 1).astype("float32")
    odd = rng.random(shape)
    x[odd < 0.03] = np.nan
    x[(odd > 0.94) & (odd < 0.97)] = np.inf
    x[odd > 0.97] = -np.inf
    return x


@st.composite
def not_finite(draw: st.DrawFn) -> Case:
    """Maxima, their places, clips and windows over NaN and infinities, several in one build."""
    shape, seed = draw(shapes(1, 3)), draw(SEEDS)
    axis = draw(st.integers(0, len(shape) - 1))
    keep = draw(st.booleans())
    x, y = sprinkled(seed, *shape), sprinkled(seed + 1, *shape)
    if draw(st.booleans()):
        x[...] = -np.inf

    def ours(x: Any, y: Any) -> list[Any]:
        return [
            op.max(x, [axis], keep),
            op.min(x, [axis], keep),
            op.argmax(x, axis, keep),
            op.argmin(x, axis, keep),
            op.argmax(x),
            op.maximum(x, y),
            op.minimum(x, y),
            op.nn.relu(x),
            op.clip(x, -0.5, 0.5),
            op.where(op.greater_equal(x, y), x, y),
            op.equal(x, y),
        ]

    def theirs(x: Any, y: Any) -> list[Any]:
        return [
            x.amax(axis, keep),
            x.amin(axis, keep),
            x.argmax(axis, keep),
            x.argmin(axis, keep),
            x.argmax(),
            torch.maximum(x, y),
            torch.minimum(x, y),
            torch.relu(x),
            x.clamp(-0.5, 0.5),
            torch.where(x >= y, x, y),
            x == y,
        ]

    return Case(ours, theirs, {"x": x, "y": y}, tolerance=1e-6)


@st.composite
def windows_not_finite(draw: st.DrawFn) -> Case:
    size = [draw(st.integers(3, 9)) for _ in range(2)]
    kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    pad = draw(st.integers(0, kernel // 2))
    x = sprinkled(draw(SEEDS), 2, draw(SIZES), *size)
    last = draw(st.booleans())
    if last:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))

    def theirs(x: Any) -> Any:
        x = x.permute(0, 3, 1, 2) if last else x
        y = F.max_pool2d(x, kernel, stride, pad)
        return y.permute(0, 2, 3, 1) if last else y

    return Case(
        lambda x: op.nn.max_pool2d(
            x, [kernel] * 2, [stride] * 2, [pad] * 2, layout="NHWC" if last else "NCHW"
        ),
        theirs,
        {"x": x},
        tolerance=1e-6,
    )


def _integers(seed: int, dtype: str, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    low = 0 if dtype.startswith("u") else -9
    return rng.integers(low, 10, shape).astype(dtype)


@st.composite
def typed(draw: st.DrawFn) -> Case:
    """Element-wise operators and reductions on whole numbers and on float64."""
    dtype = draw(st.sampled_from(["int64", "int32", "uint8", "bool", "float64"]))
    shape, seed = draw(shapes(1, 3)), draw(SEEDS)
    axes = sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    x, y = _integers(seed, dtype, *shape), _integers(seed + 1, dtype, *shape)
    inputs = {"x": x, "y": y}
    compared: list[Pair] = [
        (op.equal, torch.eq),
        (op.not_equal, torch.ne),
        (lambda x, y: op.where(op.equal(x, y), x, y), lambda x, y: torch.where(x == y, x, y)),
    ]
    if dtype == "bool":
        pairs: list[Pair] = [
            (op.logical_and, torch.logical_and),
            (op.logical_or, torch.logical_or),
            (op.logical_xor, torch.logical_xor),
            (lambda x, y: op.logical_not(x), lambda x, y: torch.logical_not(x)),
            (lambda x, y: op.astype(x, "float32"), lambda x, y: x.double()),
            (lambda x, y: op.sum(op.astype(x, "int64"), axes), lambda x, y: x.long().sum(axes)),
        ]
    else:
        kind = getattr(torch, dtype)
        one = np.asarray(1, dtype)
        inputs["y"] = np.where(y == 0, one, y)
        pairs = [
            (op.add, torch.add),
            (op.subtract, torch.sub),
            (op.multiply, torch.mul),
            (op.maximum, torch.maximum),
            (op.minimum, torch.minimum),
            (op.less, torch.lt),
            (op.greater_equal, torch.ge),
            (lambda x, y: op.sum(x, axes), lambda x, y: x.sum(axes, dtype=kind)),
            (lambda x, y: op.max(x, axes), lambda x, y: x.amax(axes)),
            (lambda x, y: op.min(x, axes), lambda x, y: x.amin(axes)),
            (lambda x, y: op.argmax(x, axes[0]), lambda x, y: _first(x, axes[0])),
            (lambda x, y: op.cumsum(x, axes[0], "int64"), lambda x, y: x.long().cumsum(axes[0])),
            (op.floor_divide, lambda x, y: torch.div(x, y, rounding_mode="floor")),
            (op.floor_mod, torch.remainder),
        ]
        if "int" in dtype:
            pairs += [
                (op.bitwise_and, torch.bitwise_and),
                (op.bitwise_or, torch.bitwise_or),
                (op.bitwise_xor, torch.bitwise_xor),
            ]
        if dtype == "float64":
            pairs.append((lambda x, y: op.exp(x), lambda x, y: x.exp()))
    chosen = [*pairs, *compared]
    return Case(
        lambda x, y: [ours(x, y) for ours, _ in chosen],
        lambda x, y: [theirs(x, y) for _, theirs in chosen],
        inputs,
        tolerance=1e-12,
    )


def _first(x: Any, axis: int) -> Any:
    """torch says of equal maxima: the first; on whole numbers it gives any."""
    return torch.from_numpy(np.asarray(np.argmax(x.numpy(), axis)))


@st.composite
def scan(draw: st.DrawFn) -> Case:
    shape, seed = draw(shapes(1, 3)), draw(SEEDS)
    axis = draw(st.integers(0, len(shape) - 1))
    x = normal(seed, *shape)
    exclusive = draw(st.booleans())

    def shifted(y: Any, start: float) -> Any:
        if not exclusive:
            return y
        first = torch.full_like(y.narrow(axis, 0, 1), start)
        return torch.cat([first, y.narrow(axis, 0, y.shape[axis] - 1)], axis)

    near_one = (1 + 0.1 * x).astype("float32")
    return Case(
        lambda x, z: [
            op.cumsum(x, axis, exclusive=exclusive),
            op.cumprod(z, axis, exclusive=exclusive),
            op.cumsum(x),
        ],
        lambda x, z: [
            shifted(x.cumsum(axis), 0.0),
            shifted(z.cumprod(axis), 1.0),
            x.flatten().cumsum(0),
        ],
        {"x": x, "z": near_one},
        tolerance=1e-4,
    )


@st.composite
def turned(draw: st.DrawFn) -> Case:
    """Transposes large enough for tiles, with tails on both sides, and what is fused with them."""
    shape = draw(st.lists(st.sampled_from([1, 3, 5, 17]), min_size=2, max_size=4))
    shape[draw(st.integers(0, len(shape) - 2))] = 260
    shape[-1] = draw(st.sampled_from([130, 150, 257]))
    order = draw(st.permutations(range(len(shape))))
    x = normal(draw(SEEDS), *shape)
    moved = [shape[axis] for axis in order]
    z = normal(draw(SEEDS), moved[-1])
    if draw(st.booleans()):
        return Case(
            lambda x, z: op.permute_dims(x, list(order)),
            lambda x, z: x.permute(*order),
            {"x": x, "z": z},
        )
    return Case(
        lambda x, z: op.tanh(op.add(op.permute_dims(x, list(order)), z)),
        lambda x, z: torch.tanh(x.permute(*order) + z),
        {"x": x, "z": z},
    )


@st.composite
def conv3d(draw: st.DrawFn) -> Case:
    kernel = [draw(st.integers(1, 3)) for _ in range(3)]
    dilation = [draw(st.sampled_from([1, 1, 2])) for _ in range(3)]
    padding = [draw(st.integers(0, 1)) for _ in range(3)]
    strides = [draw(st.integers(1, 2)) for _ in range(3)]
    size = [
        max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 4))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    groups = draw(st.sampled_from([1, 1, 1, 2]))
    each, out = draw(st.sampled_from([1, 3, 8])), draw(st.sampled_from([2, 6, 16, 34]))
    seed = draw(SEEDS)
    return Case(
        lambda x, w, b: op.nn.relu(
            op.add(
                op.nn.conv3d(
                    x, w, strides=strides, padding=padding, dilation=dilation, groups=groups
                ),
                b,
            )
        ),
        lambda x, w, b: torch.relu(
            F.conv3d(x, w, stride=strides, padding=padding, dilation=dilation, groups=groups) + b
        ),
        {"x": normal(seed, draw(st.integers(1, 2)), groups * each, *size)},
        {"w": normal(seed + 1, out, each, *kernel), "b": normal(seed + 2, out, 1, 1, 1)},
    )


@st.composite
def space_norm(draw: st.DrawFn) -> Case:
    """Instance norm, in one, two and three dimensions."""
    space = draw(st.lists(st.sampled_from([1, 2, 5, 9, 17]), min_size=1, max_size=3))
    channels, seed = draw(st.sampled_from([1, 3, 16, 33])), draw(SEEDS)
    axes = list(range(2, 2 + len(space)))
    x = normal(seed, 2, channels, *space) + draw(st.sampled_from([0, 3]))
    return Case(
        lambda x, w, b: op.nn.instance_norm(x, w, b, 1, axes, 1e-3),
        lambda x, w, b: (
            (x - x.mean(axes, keepdim=True))
            / (x.var(axes, correction=0, keepdim=True) + 1e-3).sqrt()
            * w.reshape(-1, *[1] * len(space))
            + b.reshape(-1, *[1] * len(space))
        ),
        {"x": x},
        {"w": normal(seed + 1, channels), "b": normal(seed + 2, channels)},
        tolerance=1e-4,
    )


EDGES: dict[str, st.SearchStrategy[Case]] = {
    "not finite": not_finite(),
    "windows": windows_not_finite(),
    "types": typed(),
    "scan": scan(),
    "turned": turned(),
    "conv3d": conv3d(),
    "space norm": space_norm(),
}


def nothing() -> dict[str, Case]:
    """Operators on a batch of none."""
    x2, x4 = normal(0, 0, 20), normal(0, 0, 6, 9, 9)
    w = {"w": normal(1, 33, 20)}
    return {
        "gemm": Case(
            lambda x, w: op.nn.relu(op.matmul(x, op.permute_dims(w))),
            lambda x, w: torch.relu(x @ w.T),
            {"x": x2},
            w,
        ),
        "batched matmul": Case(
            op.matmul, torch.matmul, {"x": normal(0, 0, 5, 7), "y": normal(1, 0, 7, 3)}
        ),
        "conv2d": Case(
            lambda x, w: op.nn.conv2d(x, w, padding=1),
            lambda x, w: F.conv2d(x, w, padding=1),
            {"x": x4},
            {"w": normal(1, 17, 6, 3, 3)},
        ),
        "conv2d transpose": Case(
            lambda x, w: op.nn.conv2d_transpose(x, w, strides=2),
            lambda x, w: F.conv_transpose2d(x, w, stride=2),
            {"x": x4},
            {"w": normal(1, 6, 5, 2, 2)},
        ),
        "pooling and norms": Case(
            lambda x: [
                op.nn.max_pool2d(x, 3, 2, 1),
                op.nn.adaptive_avg_pool2d(x, [4, 4]),
                op.nn.softmax(x, -1),
                op.nn.instance_norm(
                    x, relax.const(normal(2, 6)), relax.const(normal(3, 6)), 1, [2, 3]
                ),
            ],
            lambda x: [
                F.max_pool2d(x, 3, 2, 1),
                F.adaptive_avg_pool2d(x, 4),
                x.softmax(-1),
                torch.empty_like(x),
            ],
            {"x": x4},
        ),
        "rows": Case(
            lambda x: [
                op.sum(x, 1),
                op.max(x, 1),
                op.argmax(x, 1),
                op.cumsum(x, 1),
                op.tanh(x),
                op.concat([x, x], 1),
                op.concat([x, op.zeros([2, 20], "float32")], 0),
                op.permute_dims(x),
                op.topk(x, 2, 1, "values"),
            ],
            lambda x: [
                x.sum(1),
                x.amax(1),
                torch.zeros(0, dtype=torch.int64),
                x.cumsum(1),
                x.tanh(),
                torch.cat([x, x], 1),
                torch.zeros(2, 20).double(),
                x.T,
                torch.empty(0, 2),
            ],
            {"x": x2},
        ),
        "sums over nothing": Case(
            lambda x: [op.sum(x, 0), op.sum(x), op.prod(x, 0), op.cumsum(x, 0)],
            lambda x: [x.sum(0), x.sum(), x.prod(0), x.cumsum(0)],
            {"x": x2},
        ),
        "look-up": Case(
            lambda i, w: op.take(w, i, 0),
            lambda i, w: w[i],
            {"i": np.zeros((0, 3), "int64")},
            w,
        ),
    }
