"""Devices, buffers and copies, and a model that runs."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from burnish.targets.opencl import runtime
from opencl_support import require_device

TARGET = {"kind": "opencl", "max_threads_per_block": 256, "max_shared_memory_per_block": 32768}


@I.ir_module
class Layer:
    @R.function
    def main(x: R.Tensor(("n", 16), "float32"), w: R.Tensor((16, 8), "float32")):
        with R.dataflow():
            product = R.matmul(x, w)
            positive = R.nn.relu(product)
            share = R.nn.softmax(positive, axis=-1)
            R.output(share)
        return share


def test_open_sizes_run_from_one_build() -> None:
    require_device()
    built = relax.build(Layer, target=tvm.target.Target(TARGET, host="llvm"))
    machine = relax.VirtualMachine(built, tvm.opencl(0))
    rng = np.random.default_rng()
    for rows in (1, 7, 64, 0):
        x = rng.normal(size=(rows, 16)).astype("float32")
        w = rng.normal(size=(16, 8)).astype("float32")
        given = (tvm.runtime.tensor(x, tvm.opencl(0)), tvm.runtime.tensor(w, tvm.opencl(0)))
        got = machine["main"](*given).numpy()
        shifted = np.exp(np.maximum(x.astype("float64") @ w, 0))
        want = shifted / shifted.sum(-1, keepdims=True)
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


def test_a_device_that_is_not_there() -> None:
    require_device()
    count = len(runtime.devices())
    assert tvm.opencl(0).exist
    assert not tvm.opencl(count).exist
    with pytest.raises(ValueError, match=rf"no device opencl:{count} here; known: opencl:0"):
        tvm.runtime.empty((1,), "float32", tvm.opencl(count))
