"""Winograd convolution: weights transformed at compile time, and its tensor expression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.ir import Expr

from burnish.passes.kernels import Window
from burnish.passes.packed import PackedWeight
from burnish.targets.cpu.winograd import WINOGRAD
from burnish.targets.cpu.winograd_plan import Convolution, Layout, choose, layout
from burnish.targets.target import CpuTarget
from burnish.targets.winograd import Winograd


def chosen(x: relax.Expr, shape: Sequence[int], window: Window, target: CpuTarget) -> Layout | None:
    """How to cut up the convolution of ``x`` with a weight ``[O, H, W, C]``; ``None`` where the
    direct form is faster, or the only one.
    """
    sizes = [int(n.value) if isinstance(n, tirx.IntImm) else None for n in x.ty.shape]
    images, height, width, depth = sizes
    if not window.is_plain_3x3() or height is None or width is None or depth is None:
        return None
    conv = Convolution(images, height, width, depth, shape[0], window.padding)
    algorithm = choose(conv, target)
    return None if algorithm is None else layout(conv, algorithm, target)


def transformed(weight: np.ndarray, algorithm: Winograd, width: int) -> PackedWeight:
    """``[O, 3, 3, C]`` -> ``G g G^T`` in float64, rounded once: ``[ceil(O / NB), n, n, C, NB]``."""
    channels, _, _, depth = weight.shape
    g = algorithm.weight_matrix()
    blocks, n = -(-channels // width), algorithm.n
    whole = np.zeros((blocks * width, n, n, depth), "float32")
    whole[:channels] = np.einsum("ip,opqc,jq->oijc", g, weight.astype("float64"), g, optimize=True)
    stored = np.ascontiguousarray(
        whole.reshape(blocks, width, n, n, depth).transpose(0, 2, 3, 4, 1)
    )

    def value(tensors: Any, block: Expr, outer: Any, element: Expr, _code: Any, lane: Expr) -> Expr:
        return tensors[0](block, *outer, element, lane)

    return PackedWeight({"": stored}, width, channels, depth, 1, value)


def conv2d(
    weight: PackedWeight, algorithm: Winograd, padding: tuple[int, int, int, int]
) -> Callable[..., te.Tensor]:
    """``x [N, H, W, C], transformed weight -> [N, OH, OW, O]``; padding is (t, l, b, r).

    The definition, step by step, which any target can schedule; a target with a rule for it knows
    the first of its stages by the attribute ``burnish.winograd``: m and the padding.
    """
    m, n, width = algorithm.m, algorithm.n, weight.width
    blocks = -(-weight.channels // width)
    top, left, bottom, right = padding
    into, out_of = algorithm.input_matrix(), algorithm.output_matrix()

    def make(x: te.Tensor, u: te.Tensor) -> te.Tensor:
        batch, height, row, depth = x.shape
        out_height, out_row = height + top + bottom - 2, row + left + right - 2
        tiles = [tirx.floordiv(size + (m - 1), m) for size in (out_height, out_row)]

        def element(b: Any, y: Any, z: Any, c: Any) -> Expr:
            inside = tirx.all(y >= top, y < height + top, z >= left, z < row + left)
            zero = tirx.const(0, x.dtype)
            return tirx.if_then_else(inside, x(b, y - top, z - left, c), zero)

        p, q = te.reduce_axis((0, n), "p"), te.reduce_axis((0, n), "q")
        data = te.compute(
            (batch, *tiles, n, n, depth),
            lambda b, ty, tx, i, j, c: te.sum(
                element(b, ty * m + p, tx * m + q, c) * entry(into, i, p) * entry(into, j, q),
                axis=[p, q],
            ),
            name="winograd_data",
            attrs={WINOGRAD: f"{m} {top} {left} {bottom} {right}"},
        )
        k = te.reduce_axis((0, depth), "k")
        products = te.compute(
            (batch, *tiles, n, n, blocks, width),
            lambda b, ty, tx, i, j, block, lane: te.sum(
                data(b, ty, tx, i, j, k) * u(block, i, j, k, lane), axis=k
            ),
            name="winograd_products",
        )
        i, j = te.reduce_axis((0, n), "i"), te.reduce_axis((0, n), "j")

        def output(b: Any, y: Any, z: Any, block: Any, lane: Any) -> Expr:
            ty, iy = tirx.floordiv(y, m), tirx.floormod(y, m)
            tx, ix = tirx.floordiv(z, m), tirx.floormod(z, m)
            term = products(b, ty, tx, i, j, block, lane)
            return te.sum(term * entry(out_of, iy, i) * entry(out_of, ix, j), axis=[i, j])

        tiled = te.compute(
            (batch, out_height, out_row, blocks, width),
            output,
            name="winograd_output",
            attrs={WINOGRAD: "output"},
        )
        return te.compute(
            (batch, out_height, out_row, weight.channels),
            lambda b, y, z, o: tiled(b, y, z, tirx.floordiv(o, width), tirx.floormod(o, width)),
            name="unpack",
        )

    return make


def entry(matrix: np.ndarray, row: Any, column: Any) -> Expr:
    """``matrix[row, column]`` of a constant matrix."""
    value: Expr = tirx.const(0.0, "float32")
    for i, numbers in enumerate(matrix):
        for j, number in enumerate(numbers):
            if number:
                here = tirx.all(row.equal(i), column.equal(j))
                value = tirx.Select(here, tirx.const(float(number), "float32"), value)
    return value
