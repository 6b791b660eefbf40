"""Parts of a split become slices."""

from __future__ import annotations

import pytest
import torch
from kernel_support import Case, check, module, normal
from tvm import relax

from burnish.passes.slice_splits import SliceSplits
from relax_support import apply, op_names

op = relax.op


def halves(parts: int | list[int], axis: int, count: int) -> Case:
    def ours(x):
        split = op.split(x, parts, axis)
        made = [op.tanh(relax.TupleGetItem(split, i)) for i in range(count)]
        return [made[-1], made[0]]

    def theirs(x):
        if isinstance(parts, int):
            found = torch.tensor_split(x, parts, axis)
        else:
            found = torch.tensor_split(x, tuple(parts), axis)
        return [torch.tanh(found[-1]), torch.tanh(found[0])]

    return Case(ours, theirs, {"x": normal(0, 4, 12, 5)})


@pytest.mark.parametrize(("parts", "count"), [(4, 4), ([5], 2), ([1, 7], 3)])
@pytest.mark.parametrize("axis", [1, -2])
def test_parts_are_sliced_and_equal(parts, count, axis):
    case = halves(parts, axis, count)
    before = module(case)
    after = apply(SliceSplits(), before)
    names = op_names(after)
    assert "split" in op_names(before)
    assert "split" not in names
    assert names.count("strided_slice") == 2
    assert op_names(apply(SliceSplits(), after)) == names
    check(case)


def test_a_split_of_open_size_is_left_alone():
    case = halves(2, 0, 2)
    open_sized = module(Case(case.make, case.expected, case.inputs, shapes={"x": ["n", 12, 5]}))
    assert "split" in op_names(apply(SliceSplits(), open_sized))
