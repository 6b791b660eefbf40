"""What this machine can do, and why not: found by trying wherever that is cheap."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from burnish.compiler.environment import PINS, check_versions

Status = Literal["ok", "missing", "broken", "unused"]
COMPILERS = ("g++", "clang++", "c++")
LOW_MEMORY = 4e9


@dataclass(frozen=True)
class Check:
    """One finding. ``needed``: without it nothing compiles here.

    ``unused`` is found on the machine, but no part of this version uses it.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""
    needed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def examine() -> list[Check]:
    """All checks, the needed ones first. Takes some seconds: it imports torch and TVM."""
    checks: tuple[Callable[[], Check], ...] = (
        *(python, tvm_pair, cpu, instruction_set, cpu_kernel, cxx, memory, torch_, onnxruntime),
        *(openvino, tuner, other_cpus, cuda, opencl, zoo),
    )
    return [check() for check in checks]


def python() -> Check:
    detail = f"{platform.python_version()} (3.11 is the version tested)"
    return Check("python", "ok", detail, needed=True)


def tvm_pair() -> Check:
    """TVM and its FFI must be one exact pair: other pairs their metadata allow crash."""
    try:
        check_versions()
    except ImportError as error:
        said, _, remedy = str(error).partition(". Run: ")
        return Check("tvm", "broken", said, remedy, needed=True)
    said = ", ".join(f"{name} {version}" for name, version in PINS.items())
    return Check("tvm", "ok", said, needed=True)


def cpu() -> Check:
    from burnish.compiler.measure.machine import describe_machine

    machine = describe_machine()
    sets = " ".join(machine["isa"]) or "no vector instructions"
    detail = f"{machine['cpu']}, {machine['cores']} cores for this process; {sets}"
    return Check("cpu", "ok", detail, needed=True)


def instruction_set() -> Check:
    """What code for ``cpu`` is made for: LLVM's name of this CPU, its vectors and its caches."""
    name = "instruction set"
    if tvm_pair().status != "ok":
        return Check(name, "broken", "not tried: the TVM pair is wrong", needed=True)
    from burnish.targets.target import host

    found = host()
    sets = [f for f in ("avx512f", "avx2", "avx", "sse4.2", "sse2", "neon") if f in found.isa()]
    caches = " + ".join(
        f"{size // 1024} KiB" if size < 2**20 else f"{size / 2**20:g} MiB"
        for size in (found.l1, found.l2, found.l3)
    )
    without = f", without {', '.join(f[1:] for f in found.mattr)}" if found.mattr else ""
    detail = (
        f"{found.mcpu}{without}: {sets[0] if sets else 'no vectors'}, {found.lanes} floats a "
        f"vector, {found.registers} vector registers, caches {caches}"
    )
    return Check(name, "ok", detail, needed=True)


def cpu_kernel() -> Check:
    """Build one kernel with the LLVM inside TVM for this CPU, and run it."""
    name = "cpu kernel"
    if tvm_pair().status != "ok":
        return Check(name, "broken", "not tried: the TVM pair is wrong", needed=True)
    try:
        import numpy as np
        import tvm
        from tvm import te

        from burnish.targets.target import host

        source = te.placeholder((8,), "float32", name="x")
        result = te.compute((8,), lambda index: source[index] + 1.0, name="y")
        with tvm.target.Target(host().tvm()) as target:
            built = tvm.compile(te.create_prim_func([source, result]), target=target)
        given = tvm.runtime.tensor(np.arange(8, dtype="float32"))
        got = tvm.runtime.tensor(np.zeros(8, "float32"))
        built(given, got)
        right = bool((got.numpy() == given.numpy() + 1).all())
    except Exception as error:  # noqa: BLE001  (whatever goes wrong is the finding)
        return Check(name, "broken", _first_line(error), "reinstall apache-tvm", needed=True)
    if not right:
        return Check(name, "broken", "x + 1 came out wrong", "report this machine", needed=True)
    return Check(name, "ok", f"built for {host().mcpu}, ran, right", needed=True)


def cxx() -> Check:
    """A C++ compiler links the library inside an artifact."""
    name = "c++ compiler"
    remedy = "install g++ (Debian: apt install g++)"
    path = next(filter(None, map(shutil.which, COMPILERS)), None)
    if path is None:
        return Check(name, "missing", f"none of {', '.join(COMPILERS)} on PATH", remedy, True)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "a.cc")
        source.write_text("#include <vector>\nint f() { return std::vector<int>(3).size(); }\n")
        command = [path, "-shared", "-fPIC", "-o", str(Path(folder, "a.so")), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return Check(name, "broken", f"{path}: {_first_line(done.stderr)}", remedy, needed=True)
    return Check(name, "ok", f"{path} makes a shared library", needed=True)


def memory() -> Check:
    import psutil

    found = psutil.virtual_memory()
    detail = f"{found.available / 1e9:.1f} GB free of {found.total / 1e9:.1f} GB"
    if found.available < LOW_MEMORY:
        return Check("memory", "broken", detail, "4 GB free is a comfortable least")
    return Check("memory", "ok", detail)


def torch_() -> Check:
    try:
        import torch
    except Exception as error:  # noqa: BLE001
        return Check("torch", "broken", _first_line(error), "pip install torch", needed=True)
    build = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"
    return Check("torch", "ok", f"{torch.__version__}, {build}", needed=True)


def onnxruntime() -> Check:
    return _module("onnxruntime", "folds ONNX files, and is their baseline", "burnish[onnx]")


def openvino() -> Check:
    return _module("openvino", "a peer in benchmarks", "burnish[bench]")


def tuner() -> Check:
    """What the tuner's cost model and workers need."""
    for module in ("xgboost", "psutil", "cloudpickle"):
        found = _module(module, "", "burnish")
        if found.status != "ok":
            return Check("tuner", found.status, f"{module}: {found.detail}", found.remedy)
    return Check("tuner", "ok", "xgboost, psutil and cloudpickle import")


def other_cpus() -> Check:
    """Linkers for other architectures."""
    from burnish.compiler.errors import BuildError
    from burnish.compiler.linking import linker
    from burnish.targets.isa import machine_name
    from burnish.targets.target import ARCHITECTURES, parse_target

    here = machine_name(platform.machine())
    found, wanted = [], []
    for other in ARCHITECTURES:
        if other == here:
            continue
        try:
            found.append(f"{other}: {linker(parse_target(f'llvm -mtriple={other}-linux-gnu'))}")
        except BuildError as error:
            wanted.append(error.message)
    if wanted:
        return Check("other CPUs", "missing", "; ".join([*found, *wanted]))
    return Check("other CPUs", "ok", "linkers: " + "; ".join(found))


def cuda() -> Check:
    """Whether kernels can be compiled, by compiling one, and whether a GPU is here to run them."""
    from burnish.targets.cuda import nvrtc
    from burnish.targets.cuda.libraries import INSTALL
    from burnish.targets.cuda.target import DEFAULT_ARCHITECTURES, device_capability

    here = device_capability()
    runs = f"GPU of sm_{here}" if isinstance(here, int) else f"no model runs here: {here}"
    try:
        nvrtc.compile_source('extern "C" __global__ void k() {}', DEFAULT_ARCHITECTURES[-1])
    except RuntimeError as error:
        return Check("cuda", "missing", f"{_first_line(error)}; {runs}", INSTALL)
    major, minor = nvrtc.version()
    return Check("cuda", "ok", f"NVRTC {major}.{minor} compiles; {runs}")


def opencl() -> Check:
    detail = "this version builds for the CPU only"
    try:
        loader = ctypes.CDLL("libOpenCL.so.1")
        count = ctypes.c_uint(0)
        code = loader.clGetPlatformIDs(0, None, ctypes.byref(count))
    except OSError:
        return Check("opencl", "missing", f"no libOpenCL.so.1; {detail}")
    found = f"{count.value} platforms listed" if code == 0 else f"no platform (code {code})"
    return Check("opencl", "unused", f"{found}, not tried; {detail}")


def zoo() -> Check:
    """Where weights are kept, and how much room there is."""
    from burnish.models.files import cache_dir

    folder = cache_dir()
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(parent, os.W_OK):
        return Check(
            "zoo",
            "broken",
            f"cannot write {parent}",
            "set BURNISH_CACHE to a folder that can be written",
        )
    free = shutil.disk_usage(parent).free / 1e9
    return Check("zoo", "ok", f"{folder}, {free:.0f} GB free on its disk")


def _module(name: str, use: str, extra: str) -> Check:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return Check(name, "missing", f"not installed; {use}", f"pip install '{extra}'")
    except Exception as error:  # noqa: BLE001
        return Check(name, "broken", _first_line(error), f"pip install --force-reinstall {name}")
    return Check(name, "ok", f"{_version(name) or 'imports'}; {use}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
