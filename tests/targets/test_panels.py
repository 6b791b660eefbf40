"""Long sums by panels of weights, and what tiles ask for ahead of their use."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from kernel_support import Case, build, check, compare, normal, reference
from tvm import relax, tirx
from tvm.ir import Call
from tvm.tirx import AllocBuffer, Bind

from burnish.targets.cpu.stages import walk
from burnish.targets.cpu.tiling import RUN

op = relax.op


def linear(rows: int, k: int, n: int, residual: bool = False) -> Case:
    return Case(
        lambda x, r, w: (
            op.add(op.matmul(x, op.permute_dims(w)), r)
            if residual
            else op.matmul(x, op.permute_dims(w))
        ),
        lambda x, r, w: x @ w.T + (r if residual else 0),
        {"x": normal(0, rows, k), "r": normal(1, rows, n)},
        {"w": normal(2, n, k)},
    )


def prefetches(func: tirx.PrimFunc) -> int:
    def is_prefetch(call: Call) -> bool:
        return getattr(call.op, "name", "") == "tirx.call_llvm_intrin" and len(call.args) == 5

    return sum(map(is_prefetch, walk(func.body, Call)))


def names(func: tirx.PrimFunc) -> set[str]:
    return {str(a.buffer.name) for a in walk(func.body, AllocBuffer)}


@pytest.mark.parametrize(
    ("rows", "k", "n"),
    [(1, RUN * 3 // 2 + 1, 40), (37, 2 * RUN + 5, 97), (200, 3 * RUN, 33), (300, 1031, 64)],
)
def test_long_sums_have_totals_and_are_right(rows, k, n):
    built = check(linear(rows, k, n))
    assert "total" in names(built.kernels[0])


def test_sums_up_to_a_run_and_a_half_have_none():
    built = check(linear(37, RUN * 3 // 2, 97))
    assert "total" not in names(built.kernels[0])


def test_the_next_panel_is_asked_for_unless_there_is_none():
    assert prefetches(build(linear(64, 256, 512)).kernels[0]) > 0
    assert prefetches(build(linear(64, 2048, 512)).kernels[0]) > 0
    assert prefetches(build(linear(64, 256, 16)).kernels[0]) == 0


@pytest.mark.parametrize("k", [256, 2048])
def test_tiles_of_open_number_share_what_they_ask_for(k):
    """The parts are chosen without a division, before the sum."""
    case = replace(linear(30, k, 512), shapes={"x": ["n", k], "r": ["n", 512]})
    built = check(case)
    (kernel,) = built.kernels
    assert prefetches(kernel) > 0
    bound = {str(b.var.name) for b in walk(kernel.body, Bind)}
    assert {"share", "last", "line0"} <= bound
    for rows in (1, 2, 70):
        inputs = {"x": normal(rows, rows, k), "r": normal(rows + 1, rows, 512)}
        compare(built(*inputs.values()), reference(case, inputs), case.tolerance)


def test_what_the_store_adds_is_asked_for_first():
    plain, added = (build(linear(64, 256, 16, residual)).kernels[0] for residual in (False, True))
    assert prefetches(plain) == 0
    assert prefetches(added) > 0


@pytest.mark.parametrize("shape", [(3, 5), (2, 7, 3)])
def test_stacked_tensors_are_copied_without_a_test_for_each_element(shape):
    count = 9
    inputs = {f"x{i}": normal(i, *shape) for i in range(count)}

    def theirs(*xs):
        return torch.stack(xs, 1)

    def ours(*xs):
        wide = [op.expand_dims(x, 1) for x in xs]
        return op.concat(wide, 1)

    built = check(Case(ours, theirs, inputs))
    kernel = built.kernels[-1]
    conditional = [
        c for c in walk(kernel.body, Call) if getattr(c.op, "name", "") == "prim.if_then_else"
    ]
    assert not conditional
