"""Rows and columns read in another order on devices: indices keep what the writer of them said."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import te, tirx

from burnish.targets.choose import choose_target
from burnish.targets.cuda import schedule as cuda
from burnish.targets.device_lowering import PIPELINE
from burnish.targets.opencl import schedule as opencl
from opencl_support import require_device

Index = Callable[[Any], Any]
OPENCL, CUDA = choose_target("opencl"), choose_target("cuda:sm_80")


def mod(value: Any, size: int) -> Any:
    return value % size if isinstance(value, int) else tirx.floormod(value, size)


def div(value: Any, size: int) -> Any:
    return value // size if isinstance(value, int) else tirx.floordiv(value, size)


@st.composite
def indices(draw: Any, size: int) -> Index:
    """An index into ``size`` elements, made of a loop."""
    add, times = draw(st.integers(-2 * size, 2 * size)), draw(st.sampled_from([-3, -2, -1, 1, 2]))
    by = draw(st.sampled_from([1, 1, 2, 3]))
    again = draw(st.sampled_from([0, 0, 1, 2, 3]))
    return lambda i: mod(mod(div(i * times + add, by), size) + again * i, size)


@st.composite
def graphs(draw: Any) -> tuple[tuple[int, int], Callable[[Any, Any], Any]]:
    """A shape, and a graph of ``x`` of that shape, given how a tensor is computed."""
    rows, columns = draw(st.sampled_from([2, 3, 5, 6, 9])), draw(st.integers(1, 5))
    row, column = draw(indices(rows)), draw(indices(columns))
    count = rows * columns
    flat = draw(indices(count))
    width = draw(st.sampled_from([n for n in range(1, count + 1) if count % n == 0]))
    shape = (count // width, width)

    def by_axes(x: Any, computed: Any) -> Any:
        return computed((rows, columns), lambda i, j: x[row(i), column(j)] + 1)

    def by_place(x: Any, computed: Any) -> Any:
        def at(i: Any, j: Any) -> Any:
            place = flat(i * width + j)
            return x[div(place, columns), mod(place, columns)] + 1

        return computed(shape, at)

    def turned_then_reshaped(x: Any, computed: Any) -> Any:
        first = computed((rows, columns), lambda i, j: x[row(i), column(j)])

        def at(i: Any, j: Any) -> Any:
            place = i * width + j
            return first[div(place, columns), column(mod(place, columns))] + 1

        return computed(shape, at)

    return (rows, columns), draw(st.sampled_from([by_axes, by_place, turned_then_reshaped]))


def kernel(shape: tuple[int, int], graph: Any) -> tirx.PrimFunc:
    x = te.placeholder(shape, "float32", name="x")
    y = graph(x, lambda sizes, at: te.compute(sizes, at))
    return te.create_prim_func([x, y]).with_attr("global_symbol", "kernel")


def by_numpy(x: np.ndarray, graph: Any) -> np.ndarray:
    def computed(sizes: tuple[int, int], at: Any) -> np.ndarray:
        return np.array([[at(i, j) for j in range(sizes[1])] for i in range(sizes[0])], "float32")

    return graph(x, computed)


def built(func: tirx.PrimFunc, target: Any, schedule: Any) -> Any:
    return tirx.build(
        tvm.IRModule({"kernel": schedule(func, target)}), target=target.tvm(), pipeline=PIPELINE
    )


def check(shape: tuple[int, int], graph: Any) -> None:
    device = tvm.opencl(require_device().index)
    module = built(kernel(shape, graph), OPENCL, opencl.schedule)
    assert not re.search(r"[%/] \(?-\d", module.imports[0].inspect_source())
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    want = by_numpy(x, graph)
    out = tvm.runtime.tensor(np.zeros_like(want), device)
    module["kernel"](tvm.runtime.tensor(x, device), out)
    np.testing.assert_array_equal(out.numpy(), want)


@settings(max_examples=25)  # OpenCL's driver builds a program an example
@given(graphs())
def test_rows_and_columns_in_another_order(case):
    check(*case)


CASES = {
    "turned rows": ((3, 1), lambda i: mod(1 - i, 3), lambda j: j),
    "rolled rows and columns": ((6, 4), lambda i: mod(i + 2, 6), lambda j: mod(j + 3, 4)),
    "quotients of what is subtracted": ((6, 2), lambda i: div(mod(4 - i, 18), 3), lambda j: j),
    "a negative divisor": ((6, 3), lambda i: mod(i, -6) * -1, lambda j: mod(2 - j, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_tvm_alone_reads_beside_its_row(name):
    shape, row, column = CASES[name]
    graph = lambda x, computed: computed(shape, lambda i, j: x[row(i), column(j)] + 1)  # noqa: E731
    check(shape, graph)
    source = built(kernel(shape, graph), CUDA, cuda.schedule).imports[0].inspect_source()
    assert not re.search(r"[%/] \(?-\d", source)


def test_tvms_own_pass_still_drops_an_offset():
    """Where this fails, TVM is mended, and ``flatten.py`` may go."""
    shape, row, column = CASES["rolled rows and columns"]
    require_device()
    func = kernel(shape, lambda x, computed: computed(shape, lambda i, j: x[row(i), column(j)] + 1))
    mod_ = tvm.IRModule({"kernel": opencl.schedule(func, OPENCL)})
    own = tirx.build(mod_, target=OPENCL.tvm(), pipeline="s_tir").imports[0].inspect_source()
    assert "% 24" in own
    assert "% 24" not in built(func, OPENCL, opencl.schedule).imports[0].inspect_source()


def test_a_remainder_of_remainders_is_no_shift_of_the_row_beside_it():
    def column(i: Any) -> Any:
        return mod(mod(1 - i * 2, 3) + i * 2, 3)

    def graph(x: Any, computed: Any) -> Any:
        first = computed((2, 3), lambda i, j: x[mod(i, 2), column(j)])
        return computed((6, 1), lambda i, j: first[div(i + j, 3), column(mod(i + j, 3))] + 1)

    check((2, 3), graph)
