"""What the rules choose, and what they do where sizes are open or inputs are extreme."""

from __future__ import annotations

import dataclasses
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import EPILOGUES, attention_reference
from kernel_support import (
    Case,
    build,
    check,
    compare,
    lowered,
    module,
    normal,
    reference,
)
from tvm import relax, te, tirx
from tvm.ir.prim import Div, FloorDiv, FloorMod, Ramp
from tvm.tirx import For, ForKind

from burnish.targets.cpu import tiles, tiling
from burnish.targets.cpu.schedule import SCHEDULED, parallelized, schedule
from burnish.targets.cpu.stages import walk
from burnish.targets.target import CpuTarget, host, parse_target

op = relax.op


def kinds(func: tirx.PrimFunc) -> set[int]:
    return {int(loop.kind) for loop in walk(func.body, For)}


@given(
    rows=st.one_of(st.none(), st.integers(1, 5000)),
    vectors=st.integers(1, 4),
    registers=st.sampled_from([16, 32]),
)
def test_a_tile_fits_the_registers(rows, vectors, registers):
    target = dataclasses.replace(host(), registers=registers)
    mr = tiling.choose_rows(rows, vectors, target)
    assert 1 <= mr <= 16
    assert mr * vectors + vectors + 1 <= registers


@given(
    rows=st.integers(1, 3000),
    channels=st.integers(1, 3000),
    cpu=st.sampled_from([("znver5", 16, 32), ("haswell", 8, 16), ("cortex-a76", 4, 32)]),
)
def test_a_block_of_columns_keeps_the_multipliers_busy(rows, channels, cpu):
    mcpu, lanes, registers = cpu
    target = CpuTarget(mcpu=mcpu, lanes=lanes, registers=registers)
    width = tiling.choose_width(rows, channels, target)
    assert width % lanes == 0
    assert width <= 4 * lanes
    cycles = -(-channels // width) * tiling.fewest_cycles(rows, width // lanes, target)
    least = rows * channels / lanes / target.fmas
    if rows >= 16 and channels >= 8 * lanes:
        assert cycles <= 1.25 * least
    assert cycles >= least


def linear(rows: int, k: int, n: int) -> Case:
    return Case(
        lambda x, w, b: op.nn.relu(op.add(op.matmul(x, op.permute_dims(w)), b)),
        lambda x, w, b: torch.relu(x @ w.T + b),
        {"x": normal(0, rows, k)},
        {"w": normal(1, n, k), "b": normal(2, n)},
    )


def test_a_large_layer_is_one_parallel_vectorized_kernel():
    built = check(linear(130, 96, 200))
    (kernel,) = built.kernels
    assert built.unscheduled() == []
    assert {ForKind.PARALLEL, ForKind.VECTORIZED} <= kinds(kernel)


def test_a_small_kernel_stays_on_one_thread():
    built = check(linear(1, 8, 8))
    assert ForKind.PARALLEL not in kinds(built.kernels[0])


def test_a_scheduled_kernel_is_left_as_it_is():
    built = check(linear(5, 8, 8))
    (kernel,) = built.kernels
    assert SCHEDULED in kernel.attrs
    again = schedule(kernel, host())
    assert again.body.same_as(kernel.body) or str(again) == str(kernel)


def test_kernels_that_are_no_stages_keep_their_loops():
    x = normal(3, 40, 9)
    built = check(
        Case(
            lambda x: [op.argmax(x, 1), op.cumsum(x, 1), op.sort(x, 1)],
            lambda x: [x.argmax(1), x.cumsum(1), x.sort(1)[0]],
            {"x": x},
        )
    )
    assert len(built.unscheduled()) >= 1


def test_only_an_independent_loop_is_made_parallel():
    def scan(n: int) -> tirx.PrimFunc:
        x = te.placeholder((4, n), "float32", "x")
        state = te.placeholder((4, n), "float32", "state")
        first = te.compute((1, n), lambda _, i: x[0, i], name="first")
        step = te.compute((4, n), lambda t, i: state[t - 1, i] + x[t, i], name="step")
        return te.create_prim_func([x, te.scan(first, step, state)])

    def independent() -> tirx.PrimFunc:
        x = te.placeholder((40, 9), "float32", "x")
        return te.create_prim_func([x, te.compute((40, 9), lambda i, j: x[i, j] + 1.0)])

    def fold() -> tirx.PrimFunc:
        x = te.placeholder((40,), "float32", "x")
        k = te.reduce_axis((0, 40), "k")
        return te.create_prim_func([x, te.compute((1,), lambda i: te.sum(x[k], axis=k))])

    assert ForKind.PARALLEL in kinds(parallelized(independent()))
    assert ForKind.PARALLEL not in kinds(parallelized(fold()))


# -- open sizes ----------------------------------------------------------------------------------


def runs_at(case: Case, *sets: dict[str, np.ndarray]) -> None:
    """One build, several sizes."""
    built = build(case)
    for inputs in ({**case.inputs}, *sets):
        compare(built(*inputs.values()), reference(case, inputs), case.tolerance)


@pytest.mark.parametrize("epilogue", sorted(EPILOGUES))
def test_a_gemm_with_open_rows(epilogue):
    ours, theirs = EPILOGUES[epilogue]

    def inputs(b: int, n: int) -> dict[str, np.ndarray]:
        return {"x": normal(b, b, n, 20), "r": normal(n, b, n, 37)}

    case = Case(
        lambda x, r, w, c: ours(op.matmul(x, op.permute_dims(w)), c, r),
        lambda x, r, w, c: theirs(x @ w.T, c, r),
        inputs(2, 9),
        {"w": normal(1, 37, 20), "c": normal(2, 37)},
        {"x": ["b", "n", 20], "r": ["b", "n", 37]},
    )
    runs_at(case, inputs(1, 1), inputs(3, 64), inputs(5, 13))


@pytest.mark.parametrize("columns", [20, 64, 200])
@pytest.mark.parametrize("k", [24, pytest.param(1100, marks=pytest.mark.heavy)])
def test_any_number_of_rows_is_left_for_the_last_tile(columns, k):
    """Tails of every height, in short sums and in runs."""
    case = Case(
        lambda x, w: op.nn.relu(op.matmul(x, op.permute_dims(w))),
        lambda x, w: torch.relu(x @ w.T),
        {"x": normal(0, 1, k)},
        {"w": normal(1, columns, k)},
        {"x": ["n", k]},
    )
    runs_at(case, *({"x": normal(n, n, k)} for n in (0, *range(2, 20), 31)))


def test_rows_of_a_picture_are_one_axis_beside_an_open_batch():
    case = Case(
        lambda x, w: op.nn.relu(op.nn.conv2d(x, w)),
        lambda x, w: torch.relu(F.conv2d(x, w)),
        {"x": normal(0, 2, 16, 7, 7)},
        {"w": normal(1, 48, 16, 1, 1)},
        {"x": ["b", 16, 7, 7]},
    )
    runs_at(case, {"x": normal(1, 1, 16, 7, 7)}, {"x": normal(2, 5, 16, 7, 7)})


@pytest.mark.parametrize("k", [24, 1100])
def test_no_kernel_divides_by_an_open_size_with_a_proof_of_signs(k):
    """TVM takes seconds for each: it looks for the sign of everything in it."""
    case = Case(
        lambda x, w: op.nn.relu(op.matmul(x, op.permute_dims(w))),
        lambda x, w: torch.relu(x @ w.T),
        {"x": normal(0, 2, 3, k)},
        {"w": normal(1, 200, k)},
        {"x": ["b", "n", k]},
    )
    (kernel,) = build(case).kernels
    floors = [d for kind in (FloorDiv, FloorMod) for d in walk(kernel.body, kind)]
    assert all(isinstance(d.b, tirx.IntImm) for d in floors)
    assert walk(kernel.body, Div)


def test_windows_beside_an_open_batch_are_walked_as_beside_a_known_one():
    """A place at a time: all columns of one before the next."""

    def turns(*batch: int | str) -> list[object]:
        case = Case(
            lambda x: op.nn.max_pool2d(x, [3, 3], [2, 2], layout="NHWC"),
            lambda x: F.max_pool2d(x.permute(0, 3, 1, 2), 3, 2).permute(0, 2, 3, 1),
            {"x": normal(0, 2, 9, 9, 128)},
            shapes={"x": [*batch, 9, 9, 128]},
        )
        with mock.patch.object(tiles, "places_in_turn", wraps=tiling.places_in_turn) as chosen:
            found: list[object] = []
            chosen.side_effect = lambda *a: found.append(tiling.places_in_turn(*a)) or found[-1]
            check(case)
        return found

    assert turns("b") == turns(2) == [1]


@pytest.mark.parametrize("groups", [1, 8])
def test_a_convolution_with_an_open_batch_and_size(groups):
    def inputs(b: int, h: int) -> dict[str, np.ndarray]:
        return {"x": normal(b, b, 8, h, 7)}

    case = Case(
        lambda x, w: op.nn.relu(
            op.nn.conv2d(x, w, strides=[2, 1], padding=[1, 0, 1, 0], groups=groups)
        ),
        lambda x, w: torch.relu(F.conv2d(x, w, stride=[2, 1], padding=[1, 0], groups=groups)),
        inputs(2, 9),
        {"w": normal(1, 24 // 3 if groups > 1 else 24, 8 // groups, 3, 3)},
        {"x": ["b", 8, "h", 7]},
    )
    runs_at(case, inputs(1, 1), inputs(3, 12), inputs(1, 33))


def test_maps_and_folds_with_open_sizes():
    def inputs(b: int, n: int) -> dict[str, np.ndarray]:
        return {"x": normal(b, b, n, 33), "y": normal(n, n, 33)}

    case = Case(
        lambda x, y: [
            op.nn.gelu(op.add(x, y)),
            op.nn.softmax(x, -1),
            op.nn.softmax(x, 1),
            op.mean(x, 1),
            op.sum(x, [0, 2], True),
            op.max(x, 2),
            op.permute_dims(x, [2, 0, 1]),
            op.nn.layer_norm(x, relax.const(normal(7, 33)), relax.const(normal(8, 33)), [-1]),
            op.concat([x, x], 1),
        ],
        lambda x, y: [
            F.gelu(x + y),
            torch.softmax(x, -1),
            torch.softmax(x, 1),
            x.mean(1),
            x.sum([0, 2], keepdim=True),
            x.amax(2),
            x.permute(2, 0, 1),
            F.layer_norm(
                x,
                [33],
                torch.from_numpy(normal(7, 33)).double(),
                torch.from_numpy(normal(8, 33)).double(),
            ),
            torch.cat([x, x], 1),
        ],
        inputs(2, 9),
        shapes={"x": ["b", "n", 33], "y": ["n", 33]},
        tolerance=5e-5,
    )
    runs_at(case, inputs(1, 1), inputs(3, 64), inputs(5, 130))


_SLOW_TO_BUILD = [pytest.param(c, marks=pytest.mark.heavy) for c in ("TopLeft", "BottomRight")]


def heads(b: int, m: int, n: int, h: int = 2, d: int = 12, e: int = 20) -> dict[str, np.ndarray]:
    return {
        "q": normal(0, b, m, h, d),
        "k": normal(1, b, n, h, d),
        "v": normal(2, b, n, h, e),
    }


@pytest.mark.parametrize("causal", [None, *_SLOW_TO_BUILD])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_with_open_sizes(causal, masked):
    def inputs(b: int, m: int, n: int) -> dict[str, np.ndarray]:
        mask = {"bias": normal(3, b, 1, m, n)} if masked else {}
        return {**heads(b, m, n), **mask}

    shapes = {
        "q": ["b", "m", 2, 12],
        "k": ["b", "n", 2, 12],
        "v": ["b", "n", 2, 20],
        **({"bias": ["b", 1, "m", "n"]} if masked else {}),
    }
    case = Case(
        lambda q, k, v, bias=None: op.nn.attention(q, k, v, bias, None, causal),
        lambda q, k, v, bias=None: attention_reference(q, k, v, bias, causal),
        inputs(2, 7, 9),
        shapes=shapes,
    )
    runs_at(case, inputs(1, 1, 1), inputs(2, 1, 77), inputs(3, 33, 64), inputs(1, 16, 130))


@pytest.mark.parametrize("axes", [[0], [1], [0, 1]])
@pytest.mark.parametrize("shape", [(3, 17, 5), (1, 3, 33), (40, 1, 70)])
def test_what_a_later_tile_reads_keeps_its_whole_workspace(shape, axes):
    """The mean inside a variance, of which TVM kept only a part."""
    check(
        Case(
            lambda x: op.variance(x, axes),
            lambda x: x.var(axes, correction=0),
            {"x": normal(0, *shape)},
        )
    )


# -- extreme attention ---------------------------------------------------------------------------


def test_a_query_that_may_see_nothing_gives_zeros_or_the_mean():
    inputs = heads(1, 5, 7)
    bias = np.zeros((1, 1, 5, 7), "float32")
    bias[0, 0, 2] = -np.inf
    bias[0, 0, 3] = np.finfo("float32").min
    case = Case(
        lambda q, k, v, bias: op.nn.attention(q, k, v, bias), None, {**inputs, "bias": bias}
    )
    (y,) = build(case)(*case.inputs.values())
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(y[0, 2], 0)
    np.testing.assert_allclose(y[0, 3], inputs["v"][0].mean(0), rtol=1e-5, atol=1e-6)


def test_scores_far_apart_neither_overflow_nor_blur():
    inputs = heads(1, 6, 40)
    inputs = {**inputs, "q": inputs["q"] * 1000}
    check(
        Case(
            lambda q, k, v: op.nn.attention(q, k, v),
            attention_reference,
            inputs,
            tolerance=1e-3,
        )
    )


@pytest.mark.parametrize("shape", [(2, 3), (2, 1), (1, 3), (1, 1)])
def test_a_bias_of_any_broadcastable_shape(shape):
    inputs = {**heads(2, 5, 7, 3), "bias": normal(4, *shape, 5, 7)}
    check(Case(lambda q, k, v, bias: op.nn.attention(q, k, v, bias), attention_reference, inputs))


# -- other machines ------------------------------------------------------------------------------


def test_fewer_lanes_make_the_same_result():
    target = dataclasses.replace(host(), lanes=4, registers=16)
    check(linear(7, 33, 45), target)


def test_no_vector_is_wider_than_the_target():
    target = parse_target("llvm -mcpu=haswell")
    fused = lowered(module(linear(64, 64, 64)), target)
    kernels = [
        schedule(f, target) for f in fused.functions.values() if isinstance(f, tirx.PrimFunc)
    ]
    for kernel in kernels:
        widths = [
            int(loop.extent)
            for loop in walk(kernel.body, For)
            if int(loop.kind) == ForKind.VECTORIZED
        ]
        assert widths
        assert max(widths) <= 8
        assert walk(kernel.body, Ramp) == []
