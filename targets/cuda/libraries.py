"""NVIDIA's compiler libraries: where pip puts them, and how a missing one is named."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path

INSTALL = "pip install 'burnish[cuda]'"


class MissingLibraryError(RuntimeError):
    """A library of NVIDIA's that building for CUDA needs is not installed."""


@functools.cache
def toolkit() -> Path:
    """The folder that the pip packages of CUDA 13 share: ``include`` and ``lib`` are in it."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations if spec is not None else None) or ():
        folder = Path(place) / "cu13"
        if (folder / "include" / "cuda_fp16.h").is_file():
            return folder
    raise MissingLibraryError(f"building for CUDA needs its headers and NVRTC: {INSTALL}")


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """A shared library of the toolkit, ``libnvrtc.so.13``."""
    folder = toolkit() / "lib"
    try:
        if name.startswith("libnvrtc."):
            # NVRTC opens this one by its bare name, which is found where it is already open.
            for builtins in folder.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins))
        return ctypes.CDLL(str(folder / name))
    except OSError as error:
        raise MissingLibraryError(
            f"building for CUDA needs {name}, which is not to be opened ({error}): {INSTALL}"
        ) from error
