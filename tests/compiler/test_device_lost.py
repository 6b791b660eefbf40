"""A device that is lost in the middle of a call: what is told, and that nothing hangs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import tvm_ffi

import burnish
from opencl_support import require_device
from support import require

STUB = Path(__file__).parents[1] / "broken_opencl.c"
CALLS = """
import sys
import time
import numpy as np
import burnish
model, x, took = burnish.load({path!r}), np.ones((2, 20), "float32"), []
for number in range(3):
    start = time.monotonic()
    try:
        print(model(x).shape)
    except burnish.BurnishError as error:
        print(type(error).__name__, error.device, error.region, str(error))
    took.append(time.monotonic() - start)
print(*took)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An artifact whose regions on OpenCL run two kernels a call, and a library that breaks."""
    require_device()
    require(shutil.which("gcc") is not None, "needs gcc")
    folder = tmp_path_factory.mktemp("lost")
    net = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.Tanh(), torch.nn.Linear(32, 5))
    model = burnish.compile(
        net.eval(), (torch.randn(2, 20),), target="hetero:opencl:0,cpu", placement={"matmul": "cpu"}
    )
    stub = folder / "libbroken.so"
    command = ["gcc", "-shared", "-fPIC", "-o", str(stub), str(STUB), "-Wl,--no-as-needed"]
    real = str(tvm_ffi.get_global_func("burnish.opencl.library")())
    named = str(Path(real)) if "/" in real else f"-l:{real}"
    subprocess.run([*command, named], check=True)
    return model.save(folder / "net.burnish"), stub


def told(made, **environment):
    path, stub = made
    given = {"BURNISH_OPENCL": str(stub), "BROKEN_AFTER": "3", **environment}
    command = [sys.executable, "-P", "-c", CALLS.format(path=str(path))]
    done = subprocess.run(
        command, env={**os.environ, **given}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_kernel_that_does_not_start_is_told_with_its_region_and_device(made):
    first, second, third, _ = told(made)
    assert first == "(2, 5)"
    assert second.startswith("DeviceError opencl:0 region3 the model failed on opencl:0 in region3")
    assert "CL_OUT_OF_RESOURCES (-5)" in second
    assert third.startswith("DeviceError opencl:0 region1"), "a later call fails again, at once"


def test_a_device_that_answers_no_more_is_told_to_be_lost(made):
    first, second, third, _ = told(made, BROKEN_READS="1")
    assert first == "(2, 5)"
    for line in (second, third):
        assert line.startswith("DeviceError opencl:0 ")
        assert "CL_INVALID_COMMAND_QUEUE (-36)" in line
        assert "opencl:0 is lost: start the process again" in line


def test_a_device_that_hangs_is_waited_for_once_and_no_longer_than_its_limit(made):
    first, second, third, took = told(made, BROKEN_HANGS="1", BURNISH_OPENCL_LIMIT_S="4")
    assert first == "(2, 5)"
    for line in (second, third):
        assert line.startswith("DeviceError opencl:0 ")
        assert "has not answered for 4 s ($BURNISH_OPENCL_LIMIT_S): its driver hangs" in line
        assert "opencl:0 is lost: start the process again" in line
    limit, again = map(float, took.split()[1:])
    assert limit >= 4 > again, "what hung is not waited for again"
