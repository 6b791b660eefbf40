"""What is linked into every library beside its kernels: ``pool.c`` and ``replay.c``."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.tirx import Evaluate, For, ForKind, SeqStmt, Stmt

from burnish.runtime.replay import REPLAY
from burnish.runtime.threads import AVAILABLE, JOIN, THREADS
from burnish.targets import native

SOURCES = tuple(Path(__file__).with_name(name) for name in ("pool.c", "replay.c"))


def compile_linked(compiler: str, folder: Path) -> list[str]:
    """The object files to link into a library.

    Raises ``RuntimeError`` with what the compiler said.
    """
    paths = []
    for source in SOURCES:
        paths.append(folder / f"{source.stem}.o")
        paths[-1].write_bytes(_compiled(compiler, source))
    return [str(path) for path in paths]


@functools.cache
def _compiled(compiler: str, source: Path) -> bytes:
    """An object file, made once a process: that takes as long as a small model's kernels."""
    command = [compiler, "-x", "c", "-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-pthread"]
    with tempfile.TemporaryDirectory(prefix="burnish-linked-") as folder:
        path = Path(folder) / f"{source.stem}.o"
        command += [*native.ffi_includes(), "-c", str(source), "-o", str(path)]
        native.run_compiler(command, source)
        return path.read_bytes()


@tirx.transform.prim_func_pass(opt_level=0, name="AnnounceIterations")
def announce_iterations(func: tirx.PrimFunc, _mod: Any, _ctx: Any) -> tirx.PrimFunc:
    """Tell the pool the iterations of each parallel loop just before it is launched.

    TVM's launch does not carry them, and the pool cuts a loop by them. Only for libraries that
    the pool is linked into.
    """

    def announced(loop: For) -> Stmt:
        if loop.kind != ForKind.PARALLEL:
            return loop
        extent = loop.extent if loop.extent.ty.dtype == "int64" else tirx.Cast("int64", loop.extent)
        return SeqStmt([Evaluate(tirx.call_extern("int32", "burnish_iterations", extent)), loop])

    return func.with_body(tvm_ffi.structural_map(func.body, [(For, announced)], order="post"))


__all__ = [
    "AVAILABLE",
    "JOIN",
    "REPLAY",
    "SOURCES",
    "THREADS",
    "announce_iterations",
    "compile_linked",
]
