"""Kernels laid out for OpenCL: which rule, and within which limits."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import te, tirx, topi
from tvm.script import tirx as T

from burnish.passes.lower_contractions import matmul
from burnish.passes.scan import SCAN, scan
from burnish.targets.choose import choose_target
from burnish.targets.device_lowering import PIPELINE
from burnish.targets.opencl.limits import fits
from burnish.targets.opencl.schedule import RULE, RULES, schedule
from burnish.targets.opencl.target import PRESETS
from burnish.targets.serial import one_item
from opencl_support import require_device

ANY = choose_target("opencl")


def product(m: int, n: int, k: int, *, turned: bool = True) -> tirx.PrimFunc:
    """``a [m, k] b [n, k]`` (or ``b [k, n]``) plus a bias."""
    a = te.placeholder((m, k), "float32", name="a")
    b = te.placeholder((n, k) if turned else (k, n), "float32", name="b")
    bias = te.placeholder((n,), "float32", name="bias")
    y = matmul(False, turned, "float32")(a, b)
    out = te.compute(y.shape, lambda i, j: y[i, j] + bias[j], name="out")
    return te.create_prim_func([a, b, bias, out]).with_attr("global_symbol", "product")


def summed(rows: int, columns: int) -> tirx.PrimFunc:
    x = te.placeholder((rows, columns), "float32", name="x")
    return te.create_prim_func([x, topi.sum(x, -1)]).with_attr("global_symbol", "summed")


def source(func: tirx.PrimFunc, target: object) -> str:
    """OpenCL C of a kernel as laid out."""
    mod = tvm.IRModule({"kernel": func})
    with target.tvm():
        built = tvm.tirx.build(mod, target=target.tvm(), pipeline=PIPELINE)
    return built.imports[0].inspect_source()


def test_rules_are_tried_in_order():
    assert schedule(product(64, 64, 64), ANY).attrs[RULE] == "matmul"
    assert schedule(product(1, 64, 64), ANY).attrs[RULE] == "matvec"
    assert schedule(summed(5, 700), ANY).attrs[RULE] == "rows"
    x = te.placeholder((7, 3), "float32", name="x")
    relu = te.create_prim_func([x, topi.nn.relu(x)])
    assert schedule(relu, ANY).attrs[RULE] == "fallback"


SIZES = st.integers(1, 70)


@given(st.sampled_from(list(PRESETS.values())), SIZES, SIZES, SIZES, st.booleans())
def test_any_shape_keeps_the_limits_of_any_device(target, m, n, k, turned):
    assert fits(schedule(product(m, n, k, turned=turned), target), target)


def test_a_rule_that_takes_too_much_of_the_device_gives_way():
    little = dataclasses.replace(ANY, local_memory=3000)
    assert schedule(product(64, 64, 64), ANY).attrs[RULE] == "matmul"
    found = schedule(product(64, 64, 64), little)
    assert found.attrs[RULE] != "matmul"
    assert fits(found, little)
    assert not fits(schedule(product(64, 64, 64), ANY), little)


def test_too_many_work_items_do_not_fit():
    found = schedule(summed(64, 4096), ANY)
    assert fits(found, ANY)
    assert not fits(found, dataclasses.replace(ANY, work_group=16))


@pytest.mark.parametrize("name", ["2.weight", "net/Dense:0", "a b", "é"])
def test_a_name_that_c_has_not_is_changed(name):
    a = te.placeholder((5, 7), "float32", name=name)
    func = te.create_prim_func([a, te.compute((5, 7), lambda i, j: a[i, j] + 1, name="out")])
    text = source(schedule(func.with_attr("global_symbol", "kernel"), ANY), ANY)
    (given,) = set(re.findall(r"float\* restrict ([^,)]+)", text)) - {"out_ptr"}
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", given)


def test_reductions_wait_at_barriers():
    """A warp of one work item: no step of a sum goes without a barrier. Ours has two steps."""
    ours = source(schedule(summed(3, 1000), ANY).with_attr("global_symbol", "kernel"), ANY)
    assert ours.count("barrier(CLK_LOCAL_MEM_FENCE)") == 2
    with ANY.tvm():
        found = RULES["reduction"](summed(3, 1000), ANY)
    text = source(found.with_attr("global_symbol", "kernel"), ANY)
    assert text.count("barrier(CLK_LOCAL_MEM_FENCE)") >= 7


def test_loops_in_an_order_of_their_own_are_one_item():
    """Each element needs the one before: ``y[i] = y[i - 1] / 2 + x[i]``."""

    @T.prim_func(s_tir=True)
    def kernel(x: T.Buffer((9,), "float32"), y: T.Buffer((9,), "float32")):
        last = T.alloc_buffer((1,), "float32")
        last[0] = T.float32(0)
        for i in range(9):
            last[0] = last[0] * T.float32(0.5) + x[i]
            y[i] = last[0]

    assert one_item(product(2, 2, 2), ANY) is None
    found = schedule(kernel.with_attr("global_symbol", "kernel"), ANY)
    assert found.attrs[RULE] == "one item"
    assert one_item(found, ANY) is None
    require_device()
    with ANY.tvm():
        built = tvm.tirx.build(tvm.IRModule({"kernel": found}), ANY.tvm(), pipeline=PIPELINE)
    x, device = np.arange(9, dtype=np.float32), tvm.opencl()
    y = tvm.runtime.empty((9,), "float32", device)
    built["kernel"](tvm.runtime.tensor(x, device), y)
    want = np.zeros(9, np.float32)
    for i in range(9):
        want[i] = (want[i - 1] if i else 0) / 2 + x[i]
    assert np.array_equal(y.numpy(), want)


@pytest.mark.parametrize(
    ("shape", "axis", "kind", "exclusive"),
    [
        ((700,), 0, "sum", False),
        ((3, 5, 301), 1, "sum", True),
        ((2, 300, 7), 2, "prod", False),
        ((400, 3), 0, "prod", True),
    ],
)
def test_running_sums_are_one_pass_of_a_row(shape, axis, kind, exclusive):
    x = te.placeholder([tirx.const(n, "int64") for n in shape], "float32", name="x")
    func = te.create_prim_func([x, scan(axis, kind, exclusive, "float32")(x)])
    info = {"axis": axis, "kind": kind, "exclusive": int(exclusive)}
    found = schedule(func.with_attr({"global_symbol": "kernel", SCAN: info}), ANY)
    assert found.attrs[RULE] == "scans"
    require_device()
    with ANY.tvm():
        built = tvm.tirx.build(tvm.IRModule({"kernel": found}), ANY.tvm(), pipeline=PIPELINE)
    given = np.random.default_rng(0).uniform(0.9, 1.1, shape).astype(np.float32)
    out = tvm.runtime.empty(shape, "float32", tvm.opencl())
    built["kernel"](tvm.runtime.tensor(given, tvm.opencl()), out)
    fold = np.cumprod if kind == "prod" else np.cumsum
    want = fold(given.astype(np.float64), axis)
    if exclusive:
        want = np.roll(want, 1, axis)
        want[tuple(0 if place == axis else slice(None) for place in range(len(shape)))] = (
            1.0 if kind == "prod" else 0.0
        )
    assert np.allclose(out.numpy(), want, rtol=1e-4)
