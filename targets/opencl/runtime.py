"""The OpenCL runtime: compiled on first use, kept in the cache folder, loaded once a process.

TVM's wheel generates OpenCL code but cannot run it. ``runtime.cc`` is the missing part. A device
is handed to TVM as a C++ object, so the library is made against the headers of the TVM that is
installed, and made anew for another one.

Where OpenCL itself comes from:

1. ``$BURNISH_OPENCL``, a library's path or several with ``:`` between them, and nothing else if
   it is set;
2. the system's loader, ``libOpenCL.so.1``, with the drivers installed for it;
3. Intel's CPU driver, where pip put it (``intel-opencl-rt`` and ``intel-cmplr-lib-rt``).

The first that has a device is used, with all its platforms; ``tvm.opencl(i)`` counts through the
devices of all of them.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tvm_ffi
import tvm_ffi.libinfo

from burnish.runtime.opencl import INSTALL, cache_programs, configure
from burnish.runtime.opencl_libraries import candidates
from burnish.runtime.pins import OPENCL_FLAGS
from burnish.runtime.reading import cache_folder
from burnish.targets import native

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "runtime.cc"
FLAGS = list(OPENCL_FLAGS)
_lock = threading.Lock()
_loaded: list[ctypes.CDLL] = []


@dataclass(frozen=True)
class Device:
    """A device as its driver describes it; sizes in bytes.

    ``tvm.opencl(index)`` is the device. ``kind`` is cpu, gpu, accelerator or other.
    ``float_width`` is the number of floats in a vector register, as the driver counts them.
    """

    index: int
    platform: str
    platform_version: str
    name: str
    vendor: str
    version: str
    driver: str
    extensions: str
    kind: str
    compute_units: int
    max_work_group: int
    local_bytes: int
    global_bytes: int
    max_alloc_bytes: int
    float_width: int

    @property
    def float16(self) -> bool:
        """Whether kernels may compute with float16."""
        return "cl_khr_fp16" in self.extensions.split()

    @property
    def float64(self) -> bool:
        """Whether kernels may compute with float64."""
        return "cl_khr_fp64" in self.extensions.split()


def ensure() -> None:
    """Make ``tvm.opencl`` devices and OpenCL modules usable in this process.

    Compiles the runtime the first time on a machine (some 5 seconds); later calls cost nothing.
    Whether there is a device is another question: ``why_not``. Raises
    :class:`~burnish.targets.native.MissingCompilerError`, or ``RuntimeError`` with the compiler's
    message.
    """
    if _loaded:
        return
    import tvm  # noqa: F401  (the library needs TVM's runtime in the process)

    with _lock:
        if _loaded:
            return
        library = _open(_built())
        configure()
        _loaded.append(library)


def devices() -> tuple[Device, ...]:
    """The devices of all platforms, in the order of ``tvm.opencl(i)``; none is no error."""
    ensure()
    names = [field.name for field in fields(Device)]
    found = tvm_ffi.get_global_func("burnish.opencl.devices")()
    return tuple(Device(**{name: _plain(one[name]) for name in names}) for one in found)


def why_not() -> str:
    """Why nothing can run on OpenCL here, with the remedy; empty where a device is listed.

    A device that is listed may still fail to build kernels: ``probe`` tries.
    """
    reason, remedy = absence()
    return f"{reason}. Remedy: {remedy}" if reason else ""


def absence() -> tuple[str, str]:
    """Why there is no device, and the remedy; both empty where there is one."""
    try:
        if devices():
            return "", ""
    except native.MissingCompilerError as error:
        return error.reason, native.INSTALL_COMPILER
    except RuntimeError as error:
        return f"the OpenCL runtime cannot be made: {error}", "see what the compiler says"
    return str(tvm_ffi.get_global_func("burnish.opencl.problem")()), INSTALL


def counters() -> dict[str, int]:
    """What is alive now (buffers and their bytes, kernels, events, tensors held for a copy that is
    under way), and what was done so far: programs built and taken from the cache, damaged cache
    entries met, kernels launched, commands whose time was read from the device, copies that the
    host did not wait for (``sent``), and how often it waited (``waits``)."""
    ensure()
    found = tvm_ffi.get_global_func("burnish.opencl.counters")()
    return {str(name): int(count) for name, count in found.items()}


def cached() -> Path | None:
    """The compiled runtime, if one for this TVM and this source is in the cache folder."""
    key = native.source_key(_sources(), FLAGS)
    try:
        compiler = native.compiler_key(native.find_compiler())
    except native.MissingCompilerError:
        compiler = "*"  # any compiler made the same thing
    return next(iter(sorted(_folder().glob(f"runtime-{key}-{compiler}.so"))), None)


def _built() -> Path:
    if not sys.platform.startswith("linux"):
        raise RuntimeError(f"the OpenCL runtime is written for Linux; this is {sys.platform}")
    if (found := cached()) is not None:
        return found
    import tvm.libinfo

    compiler = native.find_compiler()
    key = f"{native.source_key(_sources(), FLAGS)}-{native.compiler_key(compiler)}"
    runtime = Path(tvm.libinfo.find_libtvm_runtime()).parent
    ffi = Path(tvm_ffi.libinfo.find_libtvm_ffi()).parent
    links = [f"-L{runtime}", "-ltvm_runtime", f"-L{ffi}", "-ltvm_ffi", "-ldl"]
    includes = [f"-I{tvm.libinfo.find_include_path()}", *native.ffi_includes()]
    path = _folder() / f"runtime-{key}.so"
    return native.shared_library(SOURCE, path, [*compiler, *FLAGS, *includes], links)


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        path.unlink(missing_ok=True)  # damaged on disk: made once more
    return ctypes.CDLL(str(_built()))


def _sources() -> list[Path]:
    return sorted([*FOLDER.glob("*.h"), *FOLDER.glob("*.cc")])


def _folder() -> Path:
    return cache_folder() / "opencl"


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, int) else str(value)


__all__ = [
    "INSTALL",
    "Device",
    "absence",
    "cache_programs",
    "cached",
    "candidates",
    "counters",
    "devices",
    "ensure",
    "why_not",
]
