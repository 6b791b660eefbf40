"""Kernels of tensor expressions, laid out by OpenCL's rules and run there: against float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import tvm
from tvm import te, tirx

from burnish.targets.opencl.limits import fits
from burnish.targets.opencl.schedule import schedule
from burnish.targets.opencl.target import PRESETS, OpenclTarget
from burnish.targets.rules import RULE
from opencl_support import require_device

ANY = PRESETS[""]
NUMPY = {"bfloat16": ml_dtypes.bfloat16}


def x(*shape: Any, dtype: str = "float32", name: str = "x") -> te.Tensor:
    return te.placeholder(shape, dtype, name=name)


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    """The same numbers at every call."""
    drawn = np.random.default_rng(sum(shape)).normal(size=shape)
    return drawn.astype(NUMPY.get(dtype, dtype))


def kernel(tensors: Sequence[te.Tensor]) -> tirx.PrimFunc:
    return te.create_prim_func(tensors).with_attr("global_symbol", "kernel")


def built(laid: tirx.PrimFunc, target: OpenclTarget = ANY) -> Any:
    """The kernel as laid out, as a module."""
    with target.tvm():
        return tvm.tirx.build(tvm.IRModule({"kernel": laid}), target.tvm(), pipeline="s_tir")


def source(laid: tirx.PrimFunc, target: OpenclTarget = ANY) -> str:
    """Its OpenCL C."""
    return built(laid, target).imports[0].inspect_source()


def run(
    laid: tirx.PrimFunc,
    arrays: Sequence[np.ndarray],
    shape: tuple[int, ...],
    dtype: Any,
    target: OpenclTarget = ANY,
) -> np.ndarray:
    """What it gives on the first OpenCL device."""
    require_device()
    ready, device = built(laid, target), tvm.opencl(0)
    out = tvm.runtime.tensor(np.full(shape, 77, NUMPY.get(dtype, dtype)), device)
    ready["kernel"](*[tvm.runtime.tensor(array, device) for array in arrays], out)
    return out.numpy()


def check(
    tensors: Sequence[te.Tensor],
    arrays: Sequence[np.ndarray],
    want: np.ndarray,
    rule: str,
    bound: float = 1e-5,
    target: OpenclTarget = ANY,
) -> None:
    """``rule`` lays the kernel of ``tensors`` out, which keeps the limits and is right."""
    laid = schedule(kernel(tensors), target)
    assert laid.attrs[RULE] == rule
    assert fits(laid, target)
    got = run(laid, arrays, want.shape, str(tensors[-1].dtype), target)
    scale = max(1.0, float(np.abs(want).max(initial=0)))
    np.testing.assert_allclose(got.astype("float64"), want, rtol=0, atol=bound * scale)
