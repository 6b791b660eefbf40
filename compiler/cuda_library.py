"""Kernels to one library for a GPU: each compiled here, for each architecture, with no GPU.

TVM writes the kernels as CUDA C++ and keeps the source for whoever loads the library. Here the
source is compiled, and the machine code put in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from burnish.compiler.device_executable import device_executable
from burnish.targets.cuda import called, fatbin, nvrtc, payload
from burnish.targets.cuda.resources import Resources, resources
from burnish.targets.cuda.source import prepared
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.target import usable_cores

BLOB = "__tvm_ffi__library_bin"
"""Symbol of a library under which TVM finds its modules."""


@dataclass(frozen=True)
class Library:
    """Where the library is, and what each of its kernels takes of each architecture."""

    path: Path
    resources: Mapping[str, tuple[Resources, ...]]

    def details(self) -> dict[str, Any]:
        """The same as plain data, kernels by architecture."""
        return {arch: [asdict(one) for one in found] for arch, found in self.resources.items()}


def build_cuda_library(
    mod: tvm.IRModule, target: CudaTarget, folder: Path, compiler: str, *, opt_level: int = 3
) -> Library:
    """Link the library of a finished module.

    ``mod`` is what ``pipeline.build_passes`` give. Raises :class:`nvrtc.KernelError` with the
    compiler's log for a kernel that does not compile.
    """
    executable = device_executable(
        mod, target.tvm(), opt_level, {"tirx.use_async_copy": target.capability >= 80}
    )
    found: dict[str, tuple[Resources, ...]] = {}
    path = folder / "lib.so"
    linked = called.compile_linked(called_functions(mod), compiler, folder)
    executable.export_library(
        str(path), fpack_imports=packing(target, found), addons=[*linked], cc=compiler
    )
    for file in linked:
        Path(file).unlink()
    return Library(path, found)


def packing(
    target: CudaTarget, found: dict[str, tuple[Resources, ...]]
) -> Callable[[tvm.runtime.Module, bool, str, str], str]:
    """What puts a library's modules into a file to link, CUDA source compiled.

    What each kernel takes goes to ``found``, by architecture.
    """

    def pack(module: tvm.runtime.Module, _system: bool, _prefix: str, workspace: str) -> str:
        tensor = tvm_ffi.get_global_func("runtime.ModulePackImportsToTensor")(module)
        content = payload.replaced(
            tensor.numpy().tobytes(), lambda part: _compiled(part, target, found)
        )
        return _assembly(content, Path(workspace))

    return pack


def called_functions(mod: tvm.IRModule) -> set[str]:
    """Names of the functions outside the module that its graph calls."""
    names: set[str] = set()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.ExternFunc):
            names.add(str(expr.global_symbol))

    for func in mod.functions.values():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return names


def _compiled(
    part: payload.CudaModule, target: CudaTarget, found: dict[str, tuple[Resources, ...]]
) -> payload.CudaModule:
    """The module with machine code for its source."""
    if part.form != "cuda":
        raise ValueError(f"TVM gave a CUDA module in the form {part.form!r}, not as source")
    source = prepared(part.code.decode())
    with ThreadPoolExecutor(min(len(target.arches), usable_cores())) as pool:
        codes = list(pool.map(lambda arch: nvrtc.compile_source(source, arch), target.arches))
    for code in codes:
        found[code.arch] = resources(code.cubin)
    return part.compiled("fatbin", fatbin.pack(codes, "kernels"))


def _assembly(content: bytes, folder: Path) -> str:
    """A file that puts ``content`` into a library under the symbol ``BLOB``."""
    data, path = folder / "modules.bin", folder / "modules.s"
    data.write_bytes(content)
    path.write_text(
        f'    .section .rodata\n    .globl {BLOB}\n    .balign 16\n{BLOB}:\n    .incbin "{data}"\n'
        '    .section .note.GNU-stack,"",%progbits\n'
    )
    return str(path)
