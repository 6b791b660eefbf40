"""TVM's runtime library in this process: TVM's own where it is installed, else a copy beside this.

The compiler library is never loaded. Two copies of the runtime in one process would register
their functions twice, so the copy that a later ``import tvm`` would load comes first.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from .errors import ArtifactError
from .pins import LIBRARIES, PINS

CUDART = "libcudart.so.13"


@functools.cache
def open_runtime() -> Path:
    """Load tvm-ffi and TVM's runtime, once; the folder where its libraries are.

    Raises :class:`ArtifactError` for another version of tvm-ffi, or where there is no runtime.
    """
    found, wanted = version_of("apache-tvm-ffi"), PINS["apache-tvm-ffi"]
    if found != wanted:
        raise ArtifactError(
            f"this needs apache-tvm-ffi {wanted}, and {found or 'none'} is installed: "
            f"pip install apache-tvm-ffi=={wanted}"
        )
    if "torch" not in sys.modules:  # tvm-ffi would import it, for an exchange it can do without
        os.environ.setdefault("TVM_FFI_DISABLE_TORCH_C_DLPACK", "1")
    import tvm_ffi  # noqa: F401  (its library comes before TVM's)

    folder = library_folder()
    if sys.modules.get("tvm") is None:
        for name in LIBRARIES[:2]:
            ctypes.CDLL(str(folder / name), ctypes.RTLD_GLOBAL)
    return folder


def library_folder() -> Path:
    """Where TVM's libraries are: those of an installed TVM of the right version, else our own."""
    carried = Path(__file__).with_name("lib")
    if version_of("apache-tvm") == PINS["apache-tvm"] or not carried.is_dir():
        found = PathFinder.find_spec("tvm")
        for place in (found.submodule_search_locations or ()) if found else ():
            folder = Path(place) / "lib"
            if (folder / LIBRARIES[0]).is_file():
                return folder
    if not (carried / LIBRARIES[0]).is_file():
        raise ArtifactError(
            f"no TVM runtime is here: install burnish-runtime, or apache-tvm=={PINS['apache-tvm']}"
        )
    return carried


def open_cuda() -> None:
    """Load TVM's CUDA part as well; :class:`ArtifactError` names what it lacks."""
    folder = open_runtime()
    try:
        ctypes.CDLL("libcuda.so.1", ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise ArtifactError(
            f"it needs an NVIDIA driver (libcuda.so.1), and there is none: {error}"
        ) from error
    try:
        ctypes.CDLL(str(_cudart()), ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / LIBRARIES[2]), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise ArtifactError(
            f"TVM's CUDA runtime cannot be loaded ({error}): "
            "pip install 'nvidia-cuda-runtime>=13,<14'"
        ) from error


def _cudart() -> Path | str:
    """CUDA's runtime library where pip put it, else wherever the loader finds it."""
    for entry in sys.path:
        path = Path(entry, "nvidia", "cu13", "lib", CUDART)
        if path.is_file():
            return path
    return CUDART


def version_of(distribution: str) -> str:
    """The installed version, or nothing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
