"""Padding is absorbed by the reduction that reads it, and only where nothing changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from example_counts import COMPILED
from hypothesis import given
from hypothesis import strategies as st
from kernel_support import Case, check, lowered, module
from tvm import relax, tirx
from tvm.tirx import AllocBuffer

from burnish.targets.cpu.padding import without_padding
from burnish.targets.cpu.schedule import RULE, schedule
from burnish.targets.cpu.stages import inlined, read_program, walk
from burnish.targets.target import host


def convolution(
    shape: tuple[int, int, int, int],
    channels: int,
    kernel: tuple[int, int],
    padding: tuple[int, int, int, int],
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Case:
    """NHWC data of ``shape``; ``padding`` is (top, left, bottom, right)."""
    rng = np.random.default_rng(sum(shape) + channels)
    x = rng.standard_normal(shape, dtype=np.float32)
    w = rng.standard_normal((channels, *kernel, shape[3] // groups), dtype=np.float32)
    top, left, bottom, right = padding

    def make(x: relax.Expr, w: relax.Expr) -> relax.Expr:
        return relax.op.nn.conv2d(
            x,
            w,
            strides=[stride, stride],
            padding=list(padding),
            dilation=[dilation, dilation],
            groups=groups,
            data_layout="NHWC",
            kernel_layout="OHWI",
        )

    def expected(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        data = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
        y = F.conv2d(data, w.permute(0, 3, 1, 2), None, stride, 0, dilation, groups)
        return y.permute(0, 2, 3, 1)

    return Case(make, expected, {"x": x}, {"w": w})


def kernel_of(case: Case) -> tirx.PrimFunc:
    functions = lowered(module(case)).functions.values()
    (func,) = [f for f in functions if isinstance(f, tirx.PrimFunc)]
    return func


@COMPILED
@given(
    height=st.integers(1, 13),
    width=st.integers(1, 23),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    padding=st.tuples(*[st.integers(0, 4)] * 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    depthwise=st.booleans(),
)
def test_any_window_over_any_border(height, width, kernel, padding, stride, dilation, depthwise):
    top, left, bottom, right = padding
    if height + top + bottom < dilation * (kernel[0] - 1) + 1:
        return
    if width + left + right < dilation * (kernel[1] - 1) + 1:
        return
    channels, groups = (18, 18) if depthwise else (35, 1)
    data = (2, height, width, 18 if depthwise else 3)
    check(convolution(data, channels, kernel, padding, stride, dilation, groups))


@pytest.mark.parametrize("groups", [1, 32])
def test_a_padded_convolution_keeps_no_copy_of_its_input(groups):
    padded = convolution((1, 14, 14, 32), 32, (3, 3), (1, 1, 1, 1), 2, groups=groups)
    func = kernel_of(padded)
    assert len(read_program(func).stages) > 2 - (groups > 1)
    scheduled = schedule(func, host())
    assert str(scheduled.attrs[RULE]) == "tiles"
    buffers = [alloc.buffer for alloc in walk(scheduled.body, AllocBuffer)]
    assert buffers
    assert all(buffer.scope() == "local" for buffer in buffers)


def test_the_callers_program_is_left_alone_and_twice_is_once():
    func = kernel_of(convolution((1, 6, 6, 16), 16, (3, 3), (1, 1, 1, 1)))
    program = inlined(read_program(func))
    before = len(program.stages)
    once = without_padding(program, lambda _stage, _following: True)
    twice = without_padding(once, lambda _stage, _following: True)
    assert len(program.stages) == before
    assert len(once.stages) == before - 1
    assert len(twice.stages) == len(once.stages)
    assert [len(stage.guards) for stage in once.stages] == [2, 0]


def test_padding_that_adds_something_stays():
    """An average over a border of ones is not one over the data alone."""
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 16), dtype=np.float32)

    def make(x: relax.Expr) -> relax.Expr:
        around = relax.op.nn.pad(x, [0, 0, 1, 1, 1, 1, 0, 0], pad_value=1.0)
        return relax.op.nn.avg_pool2d(around, (3, 3), layout="NHWC")

    def expected(x: torch.Tensor) -> torch.Tensor:
        data = F.pad(x.permute(0, 3, 1, 2), (1, 1, 1, 1), value=1.0)
        return F.avg_pool2d(data, 3, 1).permute(0, 2, 3, 1)

    check(Case(make, expected, {"x": x}))


def test_a_dilated_window_reaches_over_the_border():
    check(convolution((8, 4, 5, 8), 6, (3, 1), (1, 0, 1, 0), dilation=2))
    check(convolution((2, 9, 9, 8), 6, (3, 3), (3, 2, 2, 3), dilation=3))
