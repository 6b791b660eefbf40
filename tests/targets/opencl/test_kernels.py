"""Kernels: scalars of each type, launch sizes, and what is refused."""

from __future__ import annotations

import functools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm.script import tirx as T

from burnish.targets.opencl import payload
from opencl_support import kernel, load, require_device, zeros

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
C_TYPES = {"int8": "char", "int16": "short", "int32": "int", "int64": "long"}
C_TYPES |= {f"u{name}": f"u{c}" for name, c in C_TYPES.items()}
C_TYPES |= {"bool": "bool", "float32": "float", "float64": "double"}
C_TYPES |= {"float16": "ushort", "bfloat16": "ushort"}  # passed by their bits
KEPT = {"bool": "uint8", "float16": "uint16", "bfloat16": "uint16"}
OUT = ("handle", "__global float* out")


@functools.cache
def _stores() -> Any:
    """A module with a kernel ``store_DTYPE`` for each: it stores its scalar."""
    return load(
        *(
            kernel(
                "out[0] = value;",
                ("handle", f"__global {'uchar' if c == 'bool' else c}* out"),
                (dtype, f"{c} value"),
                name=f"store_{dtype}",
            )
            for dtype, c in C_TYPES.items()
        )
    )


def _stored(dtype: str, value: float) -> Any:
    out = zeros((1,), KEPT.get(dtype, dtype))
    _stores().get_function(f"store_{dtype}")(out, value, 1, 1)
    return out.numpy()[0]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_whole_numbers(dtype: str) -> None:
    limits = np.iinfo(dtype)
    for value in (0, 1, int(limits.max), int(limits.min)):
        passed = value if value < 2**63 else value - 2**64  # TVM passes 64 bits, signed
        assert _stored(dtype, passed) == value


@pytest.mark.parametrize("value", [True, False, 1, 0])
def test_truth(value: int) -> None:
    assert _stored("bool", value) == int(value)


@given(st.floats(width=64))
def test_floats_are_rounded_once_to_nearest_even(value: float) -> None:
    with np.errstate(over="ignore"):
        wanted = {
            "float64": np.float64(value),
            "float32": np.float32(value),
            "float16": np.float64(value).astype(np.float16),
            "bfloat16": _bfloat16(value),
        }
    for dtype, want in wanted.items():
        got = _stored(dtype, value)
        if dtype in KEPT:
            got = got.view(want.dtype)
        np.testing.assert_array_equal(float(got), float(want))
        assert np.isnan(value) or np.signbit(got) == np.signbit(want)


def _bfloat16(value: float) -> Any:
    """By way of float32, rounded to odd, which keeps a tie of the second step from being one."""
    near = np.float32(value)
    if np.isfinite(value) and float(near) != value and int(near.view(np.uint32)) % 2 == 0:
        near = np.nextafter(near, np.float32(np.inf if value > float(near) else -np.inf))
    return near.astype(ml_dtypes.bfloat16)


@T.prim_func(s_tir=True)
def _scaled(
    x: T.Buffer((8,), "float32"),
    y: T.Buffer((8,), "float32"),
    factor: T.float32,
    first: T.int32,
    step: T.int64,
    on: T.bool,
):
    T.func_attr({"global_symbol": "scaled"})
    for block in T.thread_binding(2, thread="blockIdx.x"):
        for thread in T.thread_binding(4, thread="threadIdx.x"):
            with T.sblock("y"):
                i = T.axis.spatial(8, block * 4 + thread)
                y[i] = T.if_then_else(
                    on, x[i] * factor + T.Cast("float32", first + step), T.float32(-1)
                )


def test_scalars_of_a_kernel_that_tvm_generates() -> None:
    require_device()
    target = tvm.target.Target({"kind": "opencl", "max_threads_per_block": 64}, host="llvm")
    built = tvm.compile(tvm.IRModule({"scaled": _scaled}), target=target)
    x = np.arange(8, dtype="float32")
    given_x, got = tvm.runtime.tensor(x, tvm.opencl(0)), zeros((8,), "float32")
    built["scaled"](given_x, got, 0.5, 3, -1, True)
    np.testing.assert_array_equal(got.numpy(), x * 0.5 + 2)
    built["scaled"](given_x, got, 0.5, 3, -1, False)
    np.testing.assert_array_equal(got.numpy(), -1)


def test_three_dimensions_and_empty_grids() -> None:
    place = "(get_global_id(2) * 3 + get_global_id(1)) * 4 + get_global_id(0)"
    tags = [f"{part}Idx.{axis}" for part in ("block", "thread") for axis in "xyz"]
    source = f"__kernel void k(__global float* out) {{ out[{place}] = get_group_id(0) + 1; }}"
    run = load(payload.Kernel("k", source, ["handle"], tags)).get_function("k")
    out = zeros((2, 3, 4), "float32")
    run(out, 2, 3, 1, 2, 1, 2)
    np.testing.assert_array_equal(out.numpy(), np.broadcast_to([1, 1, 2, 2], (2, 3, 4)))
    out = zeros((2, 3, 4), "float32")
    run(out, 2, 0, 1, 2, 1, 2)  # an open size that came out empty
    assert out.numpy().sum() == 0


def test_a_tag_that_opencl_does_not_know_is_named() -> None:
    for tag, said in (
        ("clusterCtaIdx.x", "'k' has the launch tag 'clusterCtaIdx.x'"),
        ("tirx.use_dyn_shared_memory", "give the buffers of scope 'shared.dyn' the scope 'shared'"),
    ):
        with pytest.raises(ValueError, match=said):
            load(payload.Kernel("k", "__kernel void k() {}", [], ["blockIdx.x", tag]))


@pytest.mark.parametrize("dtype", ["float32x4", "float8_e4m3fn", "int4"])
def test_a_scalar_that_cannot_be_passed_is_named(dtype: str) -> None:
    with pytest.raises(TypeError, match=rf"argument 1 of the kernel 'k' is of type {dtype}"):
        load(payload.Kernel("k", "__kernel void k() {}", ["handle", dtype]))


def test_arguments_that_do_not_fit() -> None:
    run = load(kernel("out[0] = n;", OUT, ("int32", "int n"))).get_function("k")
    out = zeros((1,), "float32")
    with pytest.raises(TypeError, match=r"takes 2 arguments and 2 launch sizes; got 3 values"):
        run(out, 1, 1)
    with pytest.raises(TypeError, match=r"argument 1 .* must be a whole number \(int32\)"):
        run(out, 1.5, 1, 1)
    with pytest.raises(TypeError, match=r"argument 0 .* must be a tensor on OpenCL"):
        run(7, 1, 1, 1)
    with pytest.raises(TypeError, match=r"argument 0 .* is a tensor that is not on OpenCL"):
        run(tvm.runtime.tensor(np.zeros(1, "float32")), 1, 1, 1)
    with pytest.raises(TypeError, match=r"launch size threadIdx\.x is not an integer"):
        run(out, 1, 1, 2.0)


def test_a_kernel_that_does_not_build_shows_the_log_and_its_name() -> None:
    run = load(kernel("out[0] = undefined_thing;", OUT, name="broken_one")).get_function
    with pytest.raises(RuntimeError) as raised:
        run("broken_one")(zeros((1,), "float32"), 1, 1)
    said = str(raised.value)
    assert "the kernel 'broken_one' does not build for opencl:0" in said
    assert "CL_BUILD_PROGRAM_FAILURE (-11)" in said
    assert "use of undeclared identifier 'undefined_thing'" in said  # the driver's log
    assert "1  __kernel void broken_one(" in said  # the source, numbered


def test_a_block_too_large_says_what_the_device_allows() -> None:
    device = require_device()
    run = load(kernel("out[0] = 1;", OUT)).get_function("k")
    with pytest.raises(RuntimeError, match=rf"the device {device.max_work_group} of at most"):
        run(zeros((1,), "float32"), 1, device.max_work_group * 2)


def test_half_precision_is_refused_by_a_device_without_it() -> None:
    device = require_device()
    pragma = "#ifdef cl_khr_fp16\n#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n#endif\n"
    stored = kernel("out[0] = (half)1.5f;", OUT)
    module = load(payload.Kernel("k", pragma + stored.source, stored.arguments))
    out = zeros((1,), "float32")
    if device.float16:
        module.get_function("k")(out, 1, 1)
        assert out.numpy()[0] == 1.5
        return
    with pytest.raises(RuntimeError, match=r"'k' computes with float16.*\(no cl_khr_fp16\)"):
        module.get_function("k")(out, 1, 1)
