"""OpenCL in this process: the part of the runtime that TVM lacks, and its cache of programs."""

from __future__ import annotations

import ctypes
from pathlib import Path

import tvm_ffi

from . import native
from .errors import ArtifactError
from .opencl_libraries import candidates
from .pins import OPENCL_LIBRARY
from .reading import cache_folder

INSTALL = (
    "install a driver (Debian, on the CPU: apt install pocl-opencl-icd ocl-icd-libopencl1; pip: "
    "intel-opencl-rt intel-cmplr-lib-rt), or name a library in BURNISH_OPENCL"
)
CACHED_PROGRAMS = 512 * 2**20
"""Bytes of built programs to keep; beyond that the oldest go."""
_CONFIGURE = "burnish.opencl.configure"
_loaded: list[ctypes.CDLL] = []
"""Kept: its functions are registered with TVM."""


def open_opencl() -> None:
    """Load TVM's runtime, and the OpenCL part that the wheel of burnish-runtime carries.

    :class:`ArtifactError` where that is missing, or where there is no OpenCL device.
    """
    native.open_runtime()
    if tvm_ffi.get_global_func(_CONFIGURE, allow_missing=True) is None:
        path = Path(__file__).with_name("lib") / OPENCL_LIBRARY
        if not path.is_file():
            raise ArtifactError(
                "the OpenCL runtime is not here: install burnish-runtime, which carries it, or "
                "load the model with burnish.load"
            )
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            raise ArtifactError(
                f"the OpenCL runtime cannot be loaded ({error}): the wheel was made on a newer "
                "system; make it on one like this"
            ) from error
        _loaded.append(library)
        configure()
    if not tvm_ffi.get_global_func("burnish.opencl.devices")():
        problem = tvm_ffi.get_global_func("burnish.opencl.problem")()
        raise ArtifactError(f"there is no OpenCL device: {problem}. Remedy: {INSTALL}")


def configure() -> None:
    """Tell the OpenCL part, which is loaded, where OpenCL may be and where programs are kept."""
    tvm_ffi.get_global_func(_CONFIGURE)(candidates(), INSTALL)
    cache_programs(cache_folder() / "opencl" / "programs")


def cache_programs(folder: Path | None) -> None:
    """Keep built programs in ``folder``, which is made if it can be, and cut to its limit;
    ``None`` keeps none."""
    tvm_ffi.get_global_func("burnish.opencl.set_cache")("" if folder is None else str(folder))
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entries = [(file, file.stat()) for file in folder.iterdir()]
        kept = 0
        for file, found in sorted(entries, key=lambda entry: -entry[1].st_mtime):
            kept += found.st_size
            if kept > CACHED_PROGRAMS:
                file.unlink(missing_ok=True)
    except OSError:  # a folder that cannot be written caches nothing and fails nothing
        pass
