"""Reading a kernel as stages, and the rules by which stages are inlined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import te, tirx
from tvm.ir import TensorLoad
from tvm.ir.prim import Mul
from tvm.s_tir import SBlockRealize
from tvm.sym import Analyzer
from tvm.tirx import For, ForKind

from burnish.targets.cpu import loops
from burnish.targets.cpu.stages import (
    Program,
    inlined,
    is_conditional,
    is_heavy,
    loads,
    read_program,
    replace_loads,
    same_indices,
    walk,
)

I64 = "int64"


def function(*tensors: te.Tensor) -> tirx.PrimFunc:
    return te.create_prim_func(list(tensors), index_dtype_override=I64)


def program(*tensors: te.Tensor) -> Program:
    read = read_program(function(*tensors))
    assert read is not None
    return read


def names(read: Program) -> list[str]:
    return [stage.name for stage in read.stages]


def data(*shape: int, name: str = "x") -> te.Tensor:
    return te.placeholder([tirx.IntImm(I64, n) for n in shape], "float32", name)


def mapped(shape, body, name):
    return te.compute([tirx.IntImm(I64, n) for n in shape], body, name=name)


def axis(size: int, name: str) -> te.IterVar:
    return te.reduce_axis((tirx.IntImm(I64, 0), tirx.IntImm(I64, size)), name)


def test_a_contraction_and_its_epilogue_read_as_two_stages():
    x, w = data(5, 7), data(3, 7, name="w")
    k = axis(7, "k")
    dot = mapped((5, 3), lambda i, j: te.sum(x[i, k] * w[j, k], axis=k), "dot")
    out = mapped((5, 3), lambda i, j: tirx.max(dot[i, j], tirx.const(0, "float32")), "out")
    read = program(x, w, out)
    first, last = read.stages
    assert (first.name, [it.size for it in first.spatial]) == ("dot", [5, 3])
    assert [it.size for it in first.reduce] == [7]
    assert isinstance(first.value, Mul)
    assert first.init.value == 0
    assert first.combine is not None
    assert first.identity()
    assert first.iterations == 5 * 3 * 7
    assert (last.combine, last.iterations) == (None, 15)
    assert read.readers(first.out) == [last]
    assert (read.is_output(first), read.is_output(last)) == (False, True)
    assert [load.source.name for load in loads(first.value)] == ["x", "w"]


@pytest.mark.parametrize("combine", ["sum", "max", "min", "prod"])
def test_a_fold_keeps_its_operator(combine):
    x = data(4, 6)
    k = axis(6, "k")
    if combine == "prod":
        reducer = te.comm_reducer(
            lambda a, b: a * b, lambda dtype: tirx.const(1, dtype), name="prod"
        )
    else:
        reducer = getattr(te, combine)
    out = mapped((4,), lambda i: reducer(x[i, k], axis=k), "out")
    (stage,) = program(x, out).stages
    two, three = tirx.const(2.0, "float32"), tirx.const(3.0, "float32")
    value = Analyzer().simplify(stage.combine(two, three)).value
    assert value == {"sum": 5, "max": 3, "min": 2, "prod": 6}[combine]


def test_what_is_not_made_of_plain_nests_is_not_read():
    x = data(4, 6)
    k = axis(6, "k")
    # Two values folded together: argmax.
    pair = te.comm_reducer(
        lambda a, b: (
            tirx.Select(a[1] >= b[1], a[0], b[0]),
            tirx.Select(a[1] >= b[1], a[1], b[1]),
        ),
        lambda i, v: (tirx.const(-1, i), tirx.min_value(v)),
    )
    which, top = te.compute((4,), lambda i: pair((k.var, x[i, k]), axis=k), name="argmax")
    assert read_program(te.create_prim_func([x, which, top])) is None
    assert read_program(loops.prim_func([], loops.seq(tirx.Evaluate(0)), {})) is None


def test_maps_are_inlined_into_their_readers():
    """Rule 1, and rule 2 for cheap values."""
    x = data(5, 7)
    a = mapped((5, 7), lambda i, j: x[i, j] + 1.0, "a")
    b = mapped((5, 7), lambda i, j: a[i, j] * 2.0, "b")
    out = mapped((7, 5), lambda i, j: b[j, i] + b[4 - j, i], "out")
    (stage,) = inlined(program(x, out)).stages
    assert stage.name == "out"
    assert {load.source.name for load in loads(stage.value)} == {"x"}


def test_an_output_is_stored_even_if_it_is_read():
    x = data(5)
    a = mapped((5,), lambda i: x[i] + 1.0, "a")
    b = mapped((5,), lambda i: a[i] * 2.0, "b")
    assert names(inlined(program(x, a, b))) == ["a", "b"]


@pytest.mark.parametrize(("columns", "kept"), [(1, ["out"]), (3, ["a", "out"])])
def test_a_heavy_value_is_inlined_only_where_it_is_computed_once(columns, kept):
    """Rule 2."""
    x, y = data(5), data(5, columns, name="y")
    a = mapped((5,), lambda i: tirx.exp(x[i]), "a")
    out = mapped((5, columns), lambda i, j: a[i] + y[i, j], "out")
    assert is_heavy(program(x, y, out).stages[0].value)
    assert names(inlined(program(x, y, out))) == kept


def padded_sum(window: int):
    x = data(5)

    def inside(i):
        return tirx.if_then_else(tirx.all(i >= 1, i < 6), x[i - 1], tirx.const(0, "float32"))

    pad = mapped((7,), inside, "pad")
    k = axis(window, "k")
    return x, mapped((8 - window,), lambda i: te.sum(pad[i + k], axis=k), "out")


@pytest.mark.parametrize(("window", "kept"), [(7, ["out"]), (3, ["pad", "out"])])
def test_padding_is_inlined_into_a_fold_only_where_it_is_read_once(window, kept):
    """Rules 3 and 5."""
    x, out = padded_sum(window)
    assert is_conditional(program(x, out).stages[0].value)
    assert names(inlined(program(x, out))) == kept


def test_a_map_of_a_fold_is_inlined_only_where_it_is_read_in_place():
    """Rule 4."""
    x = data(5, 7)
    k = axis(7, "k")
    total = mapped((5,), lambda i: te.sum(x[i, k], axis=k), "total")
    mean = mapped((5,), lambda i: total[i] / 7.0, "mean")
    there = mapped((5, 7), lambda i, j: x[i, j] - mean[i], "there")
    assert names(inlined(program(x, there))) == ["total", "mean", "there"]
    here = mapped((5,), lambda i: mean[i] + 1.0, "here")
    assert names(inlined(program(x, here))) == ["total", "here"]


def test_loads_are_replaced_and_values_moved():
    x = data(5, 7)
    out = mapped((5, 7), lambda i, j: x[i, j] * x[i, 6 - j], "out")
    (stage,) = program(x, out).stages
    doubled = replace_loads(stage.value, loads(stage.value)[0].source, lambda at: at[0] + 0.0)
    assert walk(doubled, TensorLoad) == []
    moved = stage.value_at([loops.const(2), loops.const(3)])
    assert [[int(Analyzer().simplify(i)) for i in load.indices] for load in loads(moved)] == [
        [2, 3],
        [2, 3],
    ]
    assert not same_indices([loops.const(1)], [loops.const(1), loops.const(2)])


# -- loops ---------------------------------------------------------------------------------------


def test_loops_of_one_iteration_vanish_and_those_of_none_do_nothing():
    out = loops.workspace([4], "float32", "out")

    def body(i):
        return loops.store(out, tirx.const(1, "float32"), [i])

    assert isinstance(loops.serial(1, body), tirx.BufferStore)
    assert isinstance(loops.parallel(0, body), tirx.Evaluate)
    loop = loops.parallel(4, body)
    assert isinstance(loop, For)
    assert loop.kind == ForKind.PARALLEL
    n = tirx.Var("n", I64)
    assert loops.serial(n, body).extent.same_as(n)


@given(extent=st.integers(1, 70), lanes=st.sampled_from([1, 4, 8, 16]))
def test_vectors_cover_an_extent_once(extent, lanes):
    out = loops.workspace([extent], "float32", "out")

    def body(i):
        return loops.store(out, tirx.const(1, "float32"), [i])

    for statement in (loops.vectors(extent, lanes, body), loops.span(extent, lanes, body)):
        assert sorted(stored(statement, {})) == list(range(extent))
        assert all(int(loop.extent) <= lanes for loop in walk(statement, For) if loop.kind == 2)


def stored(statement, values):
    """Where ``statement`` stores, loops run by hand."""
    if isinstance(statement, tirx.SeqStmt):
        return [at for part in statement.seq for at in stored(part, values)]
    if isinstance(statement, For):
        return [
            at
            for i in range(int(statement.extent))
            for at in stored(statement.body, {**values, statement.loop_var: i})
        ]
    index = loops.substitute(
        statement.indices[0], {var: loops.const(i) for var, i in values.items()}
    )
    return [int(Analyzer().simplify(index))]


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 10_000))
def test_a_flat_index_splits_row_major(shape, seed):
    flat = seed % int(np.prod(shape))
    split = loops.split_index(loops.const(flat), shape)
    assert [int(Analyzer().simplify(i)) for i in split] == list(np.unravel_index(flat, shape))


def test_extents_may_be_symbolic():
    n = tirx.Var("n", I64)
    assert loops.as_int(n) is None
    assert loops.as_int(loops.const(3)) == 3
    assert loops.product([2, 1, loops.const(3)]) == 6
    assert loops.product([1, n]).same_as(n)
    assert loops.simplify_equal(n + 1, 1 + n)
    assert not loops.simplify_equal(n, 4)
    whole, rest = loops.divide(n, 8)
    assert loops.simplify_equal(loops.times(whole, 8) + rest, n)
    assert loops.divide(19, 8) == (2, 3)
    assert loops.split_index(n, []) == []


def test_the_root_of_a_lowered_function_is_a_block():
    """What ``read_program`` relies on."""
    x = data(3)
    body = function(x, mapped((3,), lambda i: x[i] + 1.0, "out")).body
    assert isinstance(body, SBlockRealize)
