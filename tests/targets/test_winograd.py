"""Winograd's convolutions: the points, the kernels against float64, the model that chooses."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch.nn.functional as F
import tvm
import tvm_ffi
from example_counts import COMPILED
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import EPILOGUES
from kernel_support import (
    Built,
    Case,
    build,
    check,
    compare,
    executable,
    lowered,
    module,
    normal,
    reference,
)
from tvm import relax
from tvm.ir import Var
from tvm.tirx import For, ForKind

from burnish.passes import winograd
from burnish.passes.params import get_params
from burnish.targets.cpu.schedule import RULE
from burnish.targets.cpu.stages import walk
from burnish.targets.cpu.winograd_plan import Convolution, choose, layout, winograd_cycles
from burnish.targets.target import CpuTarget, host, parse_target
from burnish.targets.winograd import F2, F4, Winograd, polynomial

op = relax.op
BOTH = pytest.mark.parametrize("algorithm", [F2, F4], ids=["2x2", "4x4"])
SERVER = CpuTarget(
    mcpu="znver5", threads=2, lanes=16, registers=32, l1=48 << 10, l2=1 << 20, l3=32 << 20
)


def convolution(
    size: tuple[int, int],
    depth: int,
    out: int,
    padding: tuple[int, int, int, int] = (1, 1, 1, 1),
    batch: int = 1,
    epilogue: str = "none",
    seed: int = 0,
    **settings: Any,
) -> Case:
    """A 3x3 convolution and what follows it; ``padding`` is (top, left, bottom, right)."""
    ours, theirs = EPILOGUES[epilogue]
    top, left, bottom, right = padding
    rows, columns = size[0] + top + bottom - 2, size[1] + left + right - 2
    arrays = {
        "x": normal(seed, batch, depth, *size),
        "r": normal(seed + 3, batch, out, rows, columns),
    }
    return Case(
        lambda x, r, k, b: ours(op.nn.conv2d(x, k, padding=list(padding)), b, r),
        lambda x, r, k, b: theirs(F.conv2d(F.pad(x, (left, right, top, bottom)), k), b, r),
        arrays,
        {"c.weight": normal(seed + 1, out, depth, 3, 3), "c.bias": normal(seed + 2, out, 1, 1)},
        **settings,
    )


def forced(algorithm: Winograd) -> Any:
    """Every convolution that can be is Winograd's."""
    return mock.patch.object(winograd, "choose", return_value=algorithm)


def rules(built: Built) -> list[str]:
    return [str(kernel.attrs[RULE]) for kernel in built.kernels if RULE in kernel.attrs]


# -- points --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 40), min_size=1, max_size=3, unique=True), st.integers(0, 99))
def test_any_pairs_of_points_make_a_convolution(eighths, seed):
    algorithm = Winograd(tuple(Fraction(k, 8) for k in eighths), 0.0)
    n, m = algorithm.n, algorithm.m
    assert algorithm.input_matrix().shape == (n, n)
    assert algorithm.weight_matrix().shape == (n, 3)
    assert algorithm.output_matrix().shape == (m, n)
    data, taps = normal(seed, n, dtype="float64"), normal(seed + 1, 3, dtype="float64")
    products = (algorithm.weight_matrix() @ taps) * (algorithm.input_matrix() @ data)
    want = [data[i : i + 3] @ taps for i in range(m)]
    scale = np.abs(algorithm.input_matrix()).max() * np.abs(algorithm.output_matrix()).max()
    np.testing.assert_allclose(algorithm.output_matrix() @ products, want, atol=1e-13 * scale)


def test_a_polynomial_of_roots():
    assert polynomial([]) == [1]
    assert polynomial([Fraction(2), Fraction(-3)]) == [-6, 1, 1]


# -- kernels -------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> Case:
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    least = [max(1, 3 - padding[axis] - padding[axis + 2]) for axis in range(2)]
    size = tuple(low + draw(st.sampled_from([0, 0, 1, 2, 3, 4, 5, 7, 12])) for low in least)
    return convolution(
        size,
        draw(st.sampled_from([1, 2, 3, 5, 8, 16, 17, 33])),
        draw(st.sampled_from([1, 3, 7, 16, 24, 33, 64, 65])),
        padding,
        draw(st.sampled_from([1, 1, 2, 3])),
        draw(st.sampled_from(["none", "bias", "relu", "silu", "residual"])),
        draw(st.integers(0, 999)),
    )


@COMPILED
@given(cases(), st.sampled_from([F2, F4]))
def test_any_shape_agrees_with_float64(case, algorithm):
    with forced(algorithm):
        assert "winograd" in rules(check(case))


@pytest.mark.parametrize(("algorithm", "cpu"), [(F2, "nehalem"), (F4, "haswell")])
def test_other_vector_widths_agree(algorithm, cpu):
    with forced(algorithm):
        built = check(
            convolution((9, 6), 11, 21, epilogue="relu"), parse_target(f"llvm -mcpu={cpu}")
        )
    assert "winograd" in rules(built)


@BOTH
@pytest.mark.parametrize("l2", [16 << 10, 200 << 10])
def test_tasks_of_any_size_agree(algorithm, l2):
    """Small caches make many tasks of few tiles, weights that do not fit are shared out."""
    target = dataclasses.replace(host(), l2=l2, threads=2)
    case = convolution((13, 18), 40, 36, batch=2, epilogue="residual")
    conv = Convolution(2, 13, 18, 40, 36, (1, 1, 1, 1))
    assert layout(conv, algorithm, target).tasks > 1
    assert layout(conv, algorithm, target).shared == (l2 < 100 << 10)
    with forced(algorithm):
        assert "winograd" in rules(check(case, target))


@BOTH
@pytest.mark.parametrize("l2", [16 << 10, 1 << 20])
def test_an_open_batch(algorithm, l2):
    shapes = {"x": ["n", 16, 7, 10], "r": ["n", 32, 7, 10]}
    case = convolution((7, 10), 16, 32, epilogue="relu", shapes=shapes)
    target = dataclasses.replace(host(), l2=l2)
    with forced(algorithm):
        built = build(case, target)
    (kernel,) = (kernel for kernel in built.kernels if kernel.attrs[RULE] == "winograd")
    batched = [loop for loop in walk(kernel.body, For) if walk(loop.extent, Var)]
    assert batched
    assert all(loop.kind == ForKind.PARALLEL for loop in batched), "tiles of all images are one row"
    for batch in (1, 2, 5, 0):
        inputs = {
            "x": normal(batch, batch, 16, 7, 10),
            "r": normal(batch + 9, batch, 32, 7, 10),
        }
        compare(built(*inputs.values()), reference(case, inputs), case.tolerance)


@BOTH
def test_the_plain_definition_says_the_same(algorithm):
    """What the kernel is to a target that has no rule for it."""
    case = convolution((5, 6), 3, 5, (2, 0, 1, 1), batch=2, epilogue="bias")
    with forced(algorithm):
        fused = lowered(module(case))
    plain = executable(fused, host(), lambda func: func)
    main = relax.VirtualMachine(plain, tvm.cpu())["main"]
    weights = tvm_ffi.convert(list(get_params(fused).values()))
    got = main(*[tvm.runtime.tensor(x) for x in case.inputs.values()], weights)
    compare([got.numpy()], reference(case), case.tolerance)


@BOTH
@pytest.mark.parametrize("depth", [64, 512])
def test_the_error_stays_within_the_stated_bound(algorithm, depth):
    case = convolution((14, 14), depth, 32, seed=depth, tolerance=algorithm.error)
    with forced(algorithm):
        assert "winograd" in rules(check(case))


def test_non_finite_values_reach_their_own_tiles_only():
    case = convolution((12, 12), 4, 8)
    case.inputs["x"][0, 1, 0, 0] = np.nan
    with forced(F4):
        (got,) = build(case)(*case.inputs.values())
    assert np.isnan(got[0, :, :2, :2]).all()
    assert np.isfinite(got[0, :, 8:, 8:]).all()


# -- choosing ------------------------------------------------------------------------------------


def conv(size: int, depth: int, out: int, images: int | None = 1) -> Convolution:
    return Convolution(images, size, size, depth, out, (1, 1, 1, 1))


def test_the_layers_of_a_residual_network():
    assert choose(conv(56, 64, 64), SERVER) == F4
    assert choose(conv(28, 128, 128), SERVER) == F4
    assert choose(conv(14, 256, 256), SERVER) == F2
    assert choose(conv(7, 512, 512), SERVER) == F2


def test_where_it_does_not_pay():
    assert choose(conv(1, 512, 512), SERVER) is None
    assert choose(conv(2, 512, 512), SERVER) is None
    assert choose(conv(224, 1, 1), SERVER) is None
    assert choose(dataclasses.replace(conv(1, 8, 8), padding=(0, 0, 0, 0)), SERVER) is None
    assert choose(conv(8, 16, 16, images=0), SERVER) is None


def test_slow_memory_makes_large_weights_dear():
    late = conv(7, 512, 512)
    slow = dataclasses.replace(SERVER, bandwidth=1.0)
    assert choose(late, slow) is None
    assert choose(dataclasses.replace(late, images=16), SERVER) == F4
    assert winograd_cycles(late, F4, slow) > winograd_cycles(late, F2, slow)


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 9),
    st.sampled_from([F2, F4]),
    st.sampled_from([1, 2, 7, 64]),
)
def test_every_tile_is_in_a_task(height, width, depth, channels, images, algorithm, threads):
    shape = Convolution(images, height, width, depth, channels, (1, 1, 1, 1))
    cut = layout(shape, algorithm, dataclasses.replace(SERVER, threads=threads))
    tiles = -(-height // algorithm.m) * -(-width // algorithm.m) * images
    assert cut.total == tiles
    assert 1 <= cut.rows <= tiles
    starts = [min(task * cut.rows, tiles - cut.rows) for task in range(cut.tasks)]
    covered = {start + t for start in starts for t in range(cut.rows)}
    assert covered == set(range(tiles))
    assert cut.blocks * cut.nb >= channels > (cut.blocks - 1) * cut.nb
