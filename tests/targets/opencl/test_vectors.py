"""Kernels in the vectors of an OpenCL device: what they hold, and what they compute."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opencl_kernels import ANY, check, kernel, normal, run, source, x
from tvm import te, tirx, topi

from burnish.passes.lower_contractions import matmul
from burnish.targets.opencl.schedule import RULE, schedule
from burnish.targets.opencl.target import PRESETS

WIDTHS = {width: dataclasses.replace(ANY, vector=width) for width in (2, 4, 8, 16)}


def chain(rows: Any, columns: int) -> list[te.Tensor]:
    """Broadcasts along either axis, and functions of vectors."""
    a, b, c = x(rows, columns, name="a"), x(columns, name="b"), x(rows, 1, name="c")
    shifted = topi.add(a, b)
    scaled = topi.maximum(topi.multiply(shifted, c), topi.exp(shifted))
    return [a, b, c, topi.add(topi.tanh(scaled), shifted)]


def chained(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    a, b, c = (array.astype("float64") for array in (a, b, c))
    shifted = a + b
    return np.tanh(np.maximum(shifted * c, np.exp(shifted))) + shifted


def check_chain(rows: int, columns: int, width: int) -> None:
    given = [normal(rows, columns), normal(columns), normal(rows, 1)]
    whole, over = divmod(columns, width)
    rule = "vectors" if whole >= (4 if over else 1) else "fallback"
    check(chain(rows, columns), given, chained(*given), rule, target=WIDTHS[width])


@settings(max_examples=6)
@given(rows=st.integers(1, 9), columns=st.integers(1, 90), width=st.sampled_from([*WIDTHS]))
def test_a_map_of_any_shape(rows, columns, width):
    check_chain(rows, columns, width)


@pytest.mark.heavy
@settings(max_examples=40)  # OpenCL's driver builds a program an example
@given(rows=st.integers(1, 9), columns=st.integers(1, 90), width=st.sampled_from([*WIDTHS]))
def test_maps_of_many_shapes(rows, columns, width):
    check_chain(rows, columns, width)


def test_open_rows_and_none():
    n = tirx.Var("n", "int64")
    for rows in (0, 5):
        given = [normal(rows, 36), normal(36), normal(rows, 1)]
        want = chained(*given) if rows else np.zeros((0, 36))
        check(chain(n, 36), given, want, "vectors", target=WIDTHS[4])


@pytest.mark.parametrize(("m", "n", "k"), [(64, 64, 64), (33, 70, 21)])
def test_a_product_in_vectors(m, n, k):
    a, b = x(m, k, name="a"), x(n, k, name="b")
    given = [normal(m, k), normal(n, k)]
    want = np.maximum(given[0].astype("float64") @ given[1].T, 0)
    tensors = [a, b, topi.nn.relu(matmul(False, True, "float32")(a, b))]
    check(tensors, given, want, "matmul", target=WIDTHS[4])


@pytest.mark.parametrize(("name", "target"), PRESETS.items(), ids=lambda one: str(one)[:12])
def test_the_text_for_a_device_holds_its_vectors(name, target):
    text = source(schedule(kernel(chain(8, 64)), target), target)
    width = {"": 1, "cpu": 16}.get(name, 4)
    assert target.vector == width
    assert (f"vload{width}(0, a_ptr" in text) == (width > 1)
    assert (f"vstore{width}(" in text) == (width > 1)
    assert ("vload" in text) == (width > 1)


def test_a_kernel_for_any_device_runs_here():
    """As those for GPUs do, whose vectors every OpenCL device has."""
    given = [normal(4, 64), normal(64), normal(4, 1)]
    for target in (ANY, PRESETS["cpu"], PRESETS["mali"]):
        small = dataclasses.replace(target, work_group=64)
        laid = schedule(kernel(chain(4, 64)), small)
        got = run(laid, given, (4, 64), "float32", small)
        np.testing.assert_allclose(got, chained(*given), rtol=1e-5, atol=1e-6)


def test_what_reads_otherwise_or_chooses_is_left_to_other_rules():
    a = x(16, 64)
    turned = topi.transpose(topi.tanh(a))
    padded = topi.nn.pad(a, [0, 1], [0, 3])
    chosen = te.compute((16, 64), lambda i, j: tirx.Select(a[i, j] > 0, a[i, j], 0.0))
    counted = te.compute((16, 64), lambda i, j: a[i, j] + j.astype("float32"))
    single = topi.erf(a)  # which has no vectors
    for out in (turned, padded, chosen, counted, single):
        assert schedule(kernel([a, out]), WIDTHS[4]).attrs[RULE] == "fallback"
