"""Divisors that are negative numbers: what is written for them, and kernels that had them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx

import burnish
from burnish.targets.divisors import with_positive_terms, without_negative_divisors


def value_at(expr, var: tirx.Var, number: int) -> int:
    """The value of an expression, by TVM's own folding of constants."""
    put = [(tirx.Var, lambda one: tirx.IntImm("int64", number) if one.same_as(var) else one)]
    at = tvm_ffi.structural_map(expr, put, order="post")
    return int(tvm.sym.Analyzer().simplify(at).value)


@given(st.integers(2, 9), st.integers(-30, 30), st.sampled_from(["floormod", "floordiv"]))
def test_the_same_numbers(size, number, kind):
    var = tirx.Var("i", "int64")
    expr = getattr(tirx, kind)(var + 1, tirx.IntImm("int64", -size))
    new = without_negative_divisors(expr)
    assert tvm_ffi.structural_equal(without_negative_divisors(new), new)
    wanted = (number + 1) % -size if kind == "floormod" else (number + 1) // -size
    assert value_at(new, var, number) == wanted


def test_others_stay():
    var = tirx.Var("i", "int64")
    expr = tirx.floormod(var, 3) + tirx.floordiv(3, var)
    assert without_negative_divisors(expr).same_as(expr)


class Turned(torch.nn.Module):
    """Rows in another order, each of ``width`` numbers of a flat input."""

    def __init__(self, order: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.order, self.width = order, width

    def forward(self, x):
        return x.reshape(len(self.order), self.width)[torch.tensor(self.order)] + 1


@pytest.mark.parametrize("order", [(0, 2, 1), (0, 3, 2, 1), (2, 1, 0), (0, 5, 4, 3, 2, 1)])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_rows_in_another_order(order, width):
    net = Turned(order, width).eval()
    x = torch.randn(1, len(order) * width)
    compiled = burnish.compile(net, (x,), do_no_harm=False)
    assert torch.equal(compiled(x), net(x))


@settings(max_examples=25)  # each example compiles a network of its own
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_mirrored_then_reshaped(rows, columns, times, seed):
    class Mirrored(torch.nn.Module):
        def forward(self, x):
            parts = x.reshape(rows * times, columns)
            return parts.flip(0).reshape(rows, times * columns), parts.roll(1, 0).flip(1)

    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((times, rows * columns)))
    net = Mirrored()
    found = burnish.compile(net.eval(), (x,), do_no_harm=False)(x)
    for one, other in zip(found, net(x), strict=True):
        assert torch.equal(one, other)


@given(
    st.integers(2, 6),
    st.integers(1, 3),
    st.integers(-9, 9),
    st.integers(-9, 9),
    st.integers(-40, 40),
)
def test_remainders_of_remainders_are_the_same_numbers(size, times, factor, add, number):
    var = tirx.Var("i", "int64")
    inner = tirx.floormod(var + add, size * times)
    expr = tirx.floormod(inner * factor + tirx.floormod(add - inner, size) - var, size)
    new = with_positive_terms(expr)
    assert tvm_ffi.structural_equal(with_positive_terms(new), new)
    held = (number + add) % (size * times)
    assert value_at(new, var, number) == (held * factor + (add - held) % size - number) % size
    inside: list[tirx.FloorMod] = []
    tvm_ffi.structural_walk(new, [(tirx.FloorMod, inside.append)], order="post")
    assert len(inside) <= 1, "one remainder says it"
