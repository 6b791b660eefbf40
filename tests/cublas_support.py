"""A stand-in for cuBLASLt, and the function of ``blas.c`` as a library of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from burnish.targets.cuda import blas
from burnish.targets.native import ffi_includes, find_compiler

SOURCE = Path(__file__).with_name("cublas_stub.c")


def build_stub(folder: Path) -> Path:
    """The stand-in: products on the CPU by the rules of NVIDIA's manual, and a counter."""
    path = folder / "libcublas_stub.so"
    _run([*find_compiler(), "-x", "c", "-std=gnu11", "-O1", "-shared", "-fPIC", str(SOURCE)], path)
    return path


def build_function(folder: Path) -> Path:
    """A library with ``blas.c`` alone."""
    path = folder / "libblas.so"
    made = blas.compile_linked(find_compiler()[0], folder)
    _run([*find_compiler(), "-shared", *ffi_includes(), made], path)
    return path


def _run(command: list[str], path: Path) -> None:
    subprocess.run([*command, "-o", str(path), "-lm", "-ldl", "-pthread"], check=True)
