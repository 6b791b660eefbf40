"""A library exported where there is no OpenCL: no loader, no runtime of ours, nothing cached."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_nets import Block, made

import burnish
from burnish.compiler.parity import parity
from opencl_support import require_device
from support import ROOT, require_program

EXPORT = """
import ctypes, sys
from pathlib import Path
import torch, tvm
sys.path.insert(0, sys.argv[2])
from small_nets import Block, made
import burnish
from burnish.compiler.errors import TargetError
from burnish.targets.opencl import autoload
autoload.register()  # which `import tvm` calls where Burnish is installed
try:
    ctypes.CDLL("libOpenCL.so.1")
except OSError as error:
    assert "cannot open shared object file" in str(error)
else:
    raise AssertionError("there is an OpenCL loader")
inputs = (torch.arange(14).reshape(2, 7), torch.ones(2, 7))
compiled = burnish.compile(made(Block), inputs, target="opencl", cache=False)
compiled.save(sys.argv[1])
assert tvm.get_global_func("device_api.opencl", allow_missing=True) is None
assert not tvm.opencl(0).exist
assert not list(Path.home().rglob("*.so"))
try:
    compiled(*inputs)
except TargetError as error:
    print(error)
else:
    raise AssertionError("it ran")
"""


@pytest.mark.heavy
def test_a_model_exported_without_opencl_runs_with_it(tmp_path: Path) -> None:
    require_device()
    shim = tmp_path / "no_opencl.so"
    source = ROOT / "tests" / "no_opencl.c"
    cc = require_program("cc", "gcc")
    subprocess.run([cc, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    linker = tmp_path / "c++"  # links what TVM made, and compiles no runtime
    linker.write_text('#!/bin/sh\ncase "$*" in *runtime.cc*) exit 1;; esac\nexec c++ "$@"\n')
    linker.chmod(0o755)
    home, artifact = tmp_path / "home", tmp_path / "block.burnish"
    home.mkdir()
    hidden = ("BURNISH_OPENCL", "OCL_ICD_VENDORS", "BURNISH_CACHE", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HOME": str(home), "LD_PRELOAD": str(shim), "CXX": str(linker)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", EXPORT, str(artifact), str(ROOT / "tests")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot run here" in done.stdout
    compiled = burnish.load(artifact)
    inputs = (torch.arange(14).reshape(2, 7), torch.ones(2, 7))
    with torch.no_grad():
        assert parity(compiled(*inputs), made(Block)(*inputs)).rel <= 1e-5
