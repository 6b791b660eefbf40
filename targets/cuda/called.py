"""Operations that NVIDIA's libraries may compute in a kernel's place, and what is linked for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from burnish.targets.cuda import blas, dnn
from burnish.targets.cuda.blas import Product
from burnish.targets.cuda.dnn import Convolution
from burnish.targets.native import ffi_includes

Operation: TypeAlias = Product | Convolution
KINDS = (Product, Convolution)
LIBRARIES = tuple(kind.library for kind in KINDS)
_FORMS = {
    "cublas": (blas.is_key, "cublas:float16 128x768x3072 nt+bias"),
    "cudnn": (dnn.is_key, "cudnn:float16 1x56x56x64 64x3x3x64 p1x1 s1x1 d1x1 g1+bias+relu"),
}


def check_name(name: str) -> None:
    """Raise ``ValueError`` unless ``name`` is a library or ``LIBRARY:KEY`` of an operation."""
    library, colon, key = name.partition(":")
    if library not in LIBRARIES:
        raise ValueError(f"{name!r} is unknown")
    is_key, example = _FORMS[library]
    if colon and not is_key(key):
        raise ValueError(f"{key!r} is no operation of {library}: write it as {example!r}")


def compile_linked(symbols: Iterable[str], compiler: str, folder: Path) -> list[str]:
    """The object files to link into a library that calls the functions ``symbols``.

    Raises ``RuntimeError`` with what the compiler said.
    """
    wanted = set(symbols)
    return [
        str(_compiled(kind.source, compiler, folder)) for kind in KINDS if kind.symbol in wanted
    ]


def _compiled(source: Path, compiler: str, folder: Path) -> Path:
    path = folder / f"{source.stem}.o"
    command = [compiler, "-x", "c", "-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-pthread"]
    command += [*ffi_includes(), "-c", str(source), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{compiler} does not compile {source.name}:\n{done.stderr.strip()}")
    return path
