"""Devices, buffers and copies, and a model that runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from burnish.targets.opencl import runtime
from opencl_support import python, require_device
from support import require, require_program

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


SEVERAL = """
import numpy as np
import tvm
from burnish.targets.opencl import payload, runtime

runtime.ensure()
found = runtime.devices()
assert len(found) >= 3 and len({one.platform for one in found}) == 2, found
assert [one.index for one in found] == list(range(len(found)))
source = "__kernel void add(__global float* x, __global float* y) { x[get_global_id(0)] += y[0]; }"
add = payload.load(payload.write([payload.Kernel("add", source, ["handle"] * 2)]))["add"]
values = np.arange(8, dtype="float32")
made = [tvm.runtime.tensor(values, tvm.opencl(one.index)) for one in found]
for number, x in enumerate(made):
    add(x, tvm.runtime.tensor(np.full(1, number, "float32"), tvm.opencl(number)), 1, 8)
for number, x in enumerate(made):
    there = tvm.runtime.empty((8,), "float32", tvm.opencl((number + 1) % len(found)))
    x.copyto(there)  # from one device, and platform, to the next
    np.testing.assert_array_equal(there.numpy(), values + number)
try:
    add(made[0], made[1], 1, 8)
except TypeError as error:
    assert "argument 1 of the kernel 'add' is on opencl:1 (" in str(error), error
    assert "others are on opencl:0 (" in str(error), error
else:
    raise AssertionError("a kernel took buffers of two devices")
"""


@pytest.mark.heavy
def test_several_devices_of_several_platforms(tmp_path: Path) -> None:
    """Two devices of PoCL and Oclgrind's, in one process."""
    device = require_device()
    require(device.platform.startswith("Portable Comp"), "PoCL is not installed")
    program = Path(require_program("oclgrind", "oclgrind")).resolve()
    library = program.parents[1] / "lib" / "oclgrind" / "liboclgrind-rt-icd.so"
    (tmp_path / "oclgrind.icd").write_text(str(library))
    for icd in Path("/etc/OpenCL/vendors").glob("pocl*.icd"):
        (tmp_path / icd.name).write_text(icd.read_text())
    settings = {"OCL_ICD_VENDORS": str(tmp_path), "POCL_DEVICES": "pthread basic"}
    done = python(SEVERAL, **settings)
    assert done.returncode == 0, done.stderr
