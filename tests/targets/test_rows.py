"""Norms in one kernel and one pass of rows: groups, long rows, loops joined to one run."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from example_counts import COMPILED
from hypothesis import given
from hypothesis import strategies as st
from kernel_support import Case, check, lowered, module, normal
from tvm import relax, tirx

from burnish.targets.cpu.schedule import RULE, schedule
from burnish.targets.target import host

op = relax.op
SPACES = st.sampled_from([(), (1,), (5,), (16,), (3, 5), (7, 16), (1, 9), (2, 3, 4)])


def group_norm(batch: int, groups: int, each: int, space: tuple[int, ...], silu: bool) -> Case:
    channels, rank = groups * each, 2 + len(space)

    def ours(x, w, b):
        y = op.nn.group_norm(x, w, b, groups, 1, list(range(2, rank)), 1e-3)
        return op.nn.silu(y) if silu else y

    def theirs(x, w, b):
        y = torch.group_norm(x, groups, w, b, 1e-3)
        return F.silu(y) if silu else y

    inputs = {"x": normal(1, batch, channels, *space)}
    return Case(ours, theirs, inputs, {"w": normal(2, channels), "b": normal(3, channels)})


def rules(case: Case) -> list[str]:
    """What laid out each kernel."""
    functions = lowered(module(case)).functions.values()
    kernels = [f for f in functions if isinstance(f, tirx.PrimFunc)]
    return [str(schedule(kernel, host()).attrs[RULE]) for kernel in kernels]


@COMPILED
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 4),
    each=st.integers(1, 5),
    space=SPACES,
    silu=st.booleans(),
)
def test_group_norm_of_any_shape(batch, groups, each, space, silu):
    check(group_norm(batch, groups, each, space, silu))


@pytest.mark.parametrize(("groups", "each"), [(8, 8), (1, 6), (5, 1)])
@pytest.mark.parametrize("silu", [False, True])
def test_a_group_norm_and_its_activation_are_rows(groups, each, silu):
    assert rules(group_norm(2, groups, each, (7, 9), silu)) == ["rows"]


def test_an_instance_norm_of_a_batch_seen_as_channels_is_rows():
    case = Case(
        lambda x, w, b: op.nn.instance_norm(x, w, b, 1, [0, 2, 3], 1e-3),
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=1e-3),
        {"x": 100 + normal(1, 1, 12, 9, 7)},
        {"w": normal(2, 12), "b": normal(3, 12)},
    )
    assert rules(case) == ["rows"]
    check(case)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("length", [33_000, 70_001])
def test_a_softmax_longer_than_a_rows_buffer_is_rows(log, length):
    ours, theirs = (op.nn.log_softmax, F.log_softmax) if log else (op.nn.softmax, F.softmax)
    case = Case(lambda x: ours(x, -1), lambda x: theirs(x, -1), {"x": 4 * normal(1, 3, length)})
    assert rules(case) == ["rows"]
    check(case)


def test_a_long_row_that_another_kernel_reads_too_is_kept():
    case = Case(
        lambda x, y: (lambda s: [s, op.multiply(s, y)])(op.nn.softmax(x, -1)),
        lambda x, y: [torch.softmax(x, -1), torch.softmax(x, -1) * y],
        {"x": normal(1, 2, 40_000), "y": normal(2, 2, 40_000)},
    )
    check(case)


REDUCED = {
    "sum": (op.sum, torch.sum),
    "max": (op.max, torch.amax),
    "mean": (op.mean, torch.mean),
}


@COMPILED
@given(
    name=st.sampled_from(sorted(REDUCED)),
    lead=st.integers(1, 5),
    space=st.tuples(*[st.sampled_from([1, 2, 5, 7, 9, 16, 28])] * 3),
    count=st.integers(1, 3),
)
def test_reductions_over_several_last_axes_are_one_run(name, lead, space, count):
    axes = list(range(4 - count, 4))
    ours, theirs = REDUCED[name]
    check(Case(lambda x: ours(x, axes), lambda x: theirs(x, axes), {"x": normal(1, lead, *space)}))


def test_a_reduction_over_a_cut_of_a_row_is_not_one_run():
    case = Case(
        lambda x: op.sum(op.strided_slice(x, [3], [1], [6]), [2, 3]),
        lambda x: x[..., 1:6].sum((2, 3)),
        {"x": normal(1, 3, 4, 9, 8)},
    )
    check(case)


def test_a_reduction_across_turned_axes_is_right():
    case = Case(
        lambda x: op.sum(op.permute_dims(x, [0, 1, 3, 2]), [2, 3]),
        lambda x: x.sum((2, 3)),
        {"x": normal(1, 3, 4, 9, 17)},
    )
    check(case)
