"""Recurrences laid out for GPUs: on PoCL against float64, and compiled for CUDA."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrence_support import case, cells, kernel

from burnish.targets.choose import choose_target
from burnish.targets.cuda import nvrtc, sass
from burnish.targets.cuda.resources import resources
from burnish.targets.cuda.schedule import schedule as schedule_cuda
from burnish.targets.cuda.source import prepared
from burnish.targets.cuda.target import parse_cuda
from burnish.targets.gpu import recurrence
from burnish.targets.gpu.launch import Device
from burnish.targets.opencl.limits import fits
from burnish.targets.opencl.schedule import RULE, schedule
from burnish.targets.opencl.target import PRESETS
from burnish.targets.recurrence_form import Cell
from cuda_support import require_compiler
from opencl_support import require_device

ANY = choose_target("opencl")
TANH, SIGMOID = ("Tanh", 0.0, 0.0), ("Sigmoid", 0.0, 0.0)
LSTM = Cell("LSTM", (SIGMOID, TANH, TANH))
GRU = Cell("GRU", (SIGMOID, TANH))
RNN = Cell("RNN", (TANH,))


def check(cell, steps, batch, units, hidden, *, open_sizes=False, device=None):
    """The kernel, by the rule, run on the device: ``[y, h, c]`` within 2e-5 of the largest."""
    require_device()
    operands, wanted = case(cell, steps, batch, units, hidden)
    func = kernel(cell, operands, open_sizes)
    if device is None:
        laid = schedule(func, ANY)
        assert laid.attrs[RULE] == "recurrence"
    else:
        laid = recurrence.emit(func, device)
        if laid is None:
            gates, width = map(int, func.params[1].shape[2:])
            assert gates * width // 4 > device.threads, "no panel fits the group"
            return
    with ANY.tvm():
        built = tvm.tirx.build(tvm.IRModule({"kernel": laid}), ANY.tvm(), pipeline="s_tir")
    at = tvm.opencl(0)
    results = [tvm.runtime.tensor(np.full(y.shape, np.nan, "float32"), at) for y in wanted]
    built["kernel"](*[tvm.runtime.tensor(x, at) for x in operands], *results)
    for got, want in zip(results, wanted, strict=True):
        error = np.abs(got.numpy() - want).max()
        assert error <= 2e-5 * max(1.0, np.abs(want).max())


@given(cells(), st.integers(1, 6), st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=12)
def test_any_cell_of_any_size(cell, steps, batch, units, hidden):
    check(cell, steps, batch, units, hidden)


@pytest.mark.heavy
@given(
    cells(),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 90),
    st.integers(1, 90),
    st.booleans(),
    st.sampled_from([16, 64, 256, 1024]),
)
@settings(max_examples=40)
def test_any_device(cell, steps, batch, units, hidden, open_sizes, threads):
    device = Device(threads, 48 * 1024, warp=16)
    check(cell, steps, batch, units, hidden, open_sizes=open_sizes, device=device)


SIZES = [
    (LSTM, 3, 128),
    (GRU, 1, 20),
    (dataclasses.replace(GRU, after=True), 400, 300),
    (RNN, 2, 1000),
    (dataclasses.replace(LSTM, projected=True, peepholes=True, lengths=True), 128, 256),
]


@pytest.mark.parametrize(("cell", "batch", "units"), SIZES)
def test_cuda_compiles_it_without_spills(cell, batch, units):
    """Of a loop over weights, four loads of sixteen bytes are in flight; none is spilled."""
    require_compiler()
    target = parse_cuda("cuda:sm_80")
    operands, _ = case(cell, 0, batch, units, units)
    laid = schedule_cuda(kernel(cell, operands, open_sizes=False), target)
    assert laid.attrs[RULE] == "recurrence"
    with target.tvm():
        built = tvm.tirx.build(tvm.IRModule({"kernel": laid}), target.tvm(), pipeline="s_tir")
    code = nvrtc.compile_source(prepared(built.imports[0].inspect_source("cuda")), "sm_80")
    (found,) = resources(code.cubin)
    (machine,) = sass.kernels(code.cubin).values()
    assert found.local == 0
    assert machine.count(*sass.SPILLS) == 0


def test_what_does_not_fit_gives_way():
    operands, _ = case(LSTM, 0, 1, 40, 40)
    func = kernel(LSTM, operands)
    assert recurrence.emit(func, Device(256, 1000)) is None
    small = dataclasses.replace(ANY, local_memory=3 * 1024)
    found = schedule(func, small)
    assert found.attrs[RULE] == "one item"


@pytest.mark.parametrize("target", PRESETS.values(), ids=lambda target: target.name)
def test_every_device_has_room(target):
    operands, _ = case(LSTM, 0, 300, 512, 512)
    found = schedule(kernel(LSTM, operands), target)
    assert found.attrs[RULE] == "recurrence"
    assert fits(found, target)
