"""NVIDIA's libraries that an artifact calls: what it needs of them, and what is here."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .errors import ArtifactError

TENSORRT = "tensorrt"
LEAST = {"cublas": "12.0", "cudnn": "9.0"}
"""The oldest version whose functions and numbers are those that we call."""
_NAMES = {"cublas": "cuBLASLt", "cudnn": "cuDNN", TENSORRT: "TensorRT"}
_FILES = {
    "cublas": ("BURNISH_CUBLASLT", ("libcublasLt.so.13", "libcublasLt.so.12")),
    "cudnn": ("BURNISH_CUDNN", ("libcudnn.so.9",)),
}
_REMEDY = {
    "cublas": "pip install 'nvidia-cublas>=13,<14'",
    "cudnn": "pip install 'nvidia-cudnn-cu13>=9,<10'",
}
Needs = Mapping[str, Mapping[str, str]]


def offer_libraries() -> None:
    """Open pip's cuBLASLt and cuDNN, where they are, so that models find them by their names."""
    spec = importlib.util.find_spec("nvidia")
    places = (spec.submodule_search_locations if spec is not None else None) or ()
    for pattern in ("*/lib/libcublasLt.so.1[23]", "*/lib/libcudnn.so.9"):
        found = (path for place in places for path in Path(place).glob(pattern))
        for path in sorted(found, reverse=True):
            try:
                ctypes.CDLL(str(path))
                break
            except OSError:
                continue


def check_libraries(
    path: os.PathLike[str], needs: Needs, capability: Callable[[], int | str]
) -> None:
    """Raise :class:`ArtifactError` where a library here is older than an artifact needs, or
    TensorRT or the GPU is another one than its engines are for.

    A library that is not here is named by the model's first call. ``capability`` gives that of the
    GPU, 90 for 9.0, or why there is none.
    """
    for name, need in needs.items():
        if name == TENSORRT:
            _check_engines(path, need, capability())
            continue
        here = version_here(name)
        if here is not None and _numbers(here) < _numbers(need["least"]):
            raise ArtifactError(
                f"{path} calls {_NAMES[name]} {need['least']} or later, and {here} is here: "
                f"{_REMEDY[name]}"
            )


def _check_engines(path: os.PathLike[str], made: Mapping[str, str], capability: int | str) -> None:
    try:
        version = str(importlib.import_module(TENSORRT).__version__)
    except ImportError:
        version = "none"
    here = f"sm_{capability}" if isinstance(capability, int) else f"no GPU ({capability})"
    if version != made["version"] or here != made["capability"]:
        raise ArtifactError(
            f"{path} has engines of TensorRT {made['version']} for {made['capability']} "
            f"({made['gpu']}), and here are TensorRT {version} and {here}: compile the model here, "
            f"or pip install tensorrt=={made['version']} on such a GPU"
        )


def version_here(name: str) -> str | None:
    """The version of a library of NVIDIA's by its own word, or ``None`` where it cannot be opened.

    ``13.1.0``, as far as it is told.
    """
    variable, files = _FILES[name]
    own = os.environ.get(variable)
    for file in [own] if own else files:
        try:
            library = ctypes.CDLL(file)
            ask: Any = library.cublasLtGetVersion if name == "cublas" else library.cudnnGetVersion
        except (OSError, AttributeError):
            continue
        ask.restype = ctypes.c_size_t
        number = int(ask())
        # cuBLASLt: 130100 is 13.1.0; cuDNN 9: 90501 is 9.5.1.
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
