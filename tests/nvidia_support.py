"""A stand-in for cuBLASLt, cuDNN and the driver, and our functions as libraries of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from burnish.targets.cuda.called import Operation, compile_linked
from burnish.targets.native import ffi_includes, find_compiler

SOURCE = Path(__file__).with_name("nvidia_stub.c")


def build_stub(folder: Path) -> Path:
    """The stand-in: it computes on the CPU by the rules of NVIDIA's manuals, and counts."""
    path = folder / "libnvidia_stub.so"
    _run([*find_compiler(), "-x", "c", "-std=gnu11", "-O1", "-shared", "-fPIC", str(SOURCE)], path)
    return path


def build_function(kind: type[Operation], folder: Path) -> Path:
    """A library with the function of one kind of operation alone."""
    path = folder / f"lib{kind.library}.so"
    made = compile_linked([kind.symbol], find_compiler()[0], folder)
    _run([*find_compiler(), "-shared", *ffi_includes(), *made], path)
    return path


def _run(command: list[str], path: Path) -> None:
    subprocess.run([*command, "-o", str(path), "-lm", "-ldl", "-pthread"], check=True)
