"""Kernels to object files, as many at once as there are cores.

TVM lets go of Python's lock while it lowers and while LLVM works, so threads are enough. A file
takes as long to begin as two or three small kernels take to compile, so these go together, but
only some at a time: some of TVM's passes walk the whole module once a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import tvm
from tvm import relax, tirx
from tvm.ir import Call, TensorLoad
from tvm.relax.vm_build import _vmcodegen, _vmlink
from tvm.runtime import Executable

from burnish.targets.cpu.argument_checks import SETTLED
from burnish.targets.cpu.lowering import PIPELINE
from burnish.targets.cpu.stages import walk
from burnish.targets.target import CpuTarget, usable_cores

STUB = "burnish_stub"
"""A function that is never called: the module by which TVM knows what to link for."""
Elsewhere: TypeAlias = Callable[[dict[tvm.ir.GlobalVar, tirx.PrimFunc]], list[tvm.runtime.Module]]
SHARED = 120
"""The work of the kernels in one file, in the units of :func:`_work`; one with more has its own."""


def compile_objects(
    mod: tvm.IRModule,
    target: CpuTarget,
    folder: Path,
    *,
    settled: Collection[str] = (),
    opt_level: int = 3,
    elsewhere: Elsewhere | None = None,
) -> tuple[Executable, list[str]]:
    """The virtual machine's code of a finished module, and the object files to link it with.

    ``mod`` is what ``pipeline.build_passes`` give. ``settled`` are the names of kernels that need
    not check their arguments. ``elsewhere`` takes the kernels away that are for other devices, and
    gives the modules of these. Linking, ``executable.export_library(path, addons=objects)``, makes
    the whole.
    """
    builder = relax.ExecBuilder()
    left = _vmcodegen(builder, mod)
    kernels = {
        var: func.with_attr(SETTLED, True) if var.name_hint in settled else func
        for var, func in left.functions.items()
        if isinstance(func, tirx.PrimFunc)
    }
    modules = [] if elsewhere is None else elsewhere(kernels)
    stub = tirx.PrimFunc([], tirx.Evaluate(tirx.const(0, "int32")))
    together = {tvm.ir.GlobalVar(STUB): stub.with_attr("global_symbol", STUB)}

    def compiled(number: int, functions: dict[tvm.ir.GlobalVar, tirx.PrimFunc]) -> str:
        path = folder / f"kernel{number}.o"
        with target.tvm(), tvm.transform.PassContext(opt_level=opt_level):
            built = tirx.build(tvm.IRModule(functions), target=target.tvm(), pipeline=PIPELINE)
            built.write_to_file(str(path))
        return str(path)

    alone: list[tuple[int, tvm.ir.GlobalVar]] = []
    small: list[tuple[int, tvm.ir.GlobalVar]] = []
    for var, func in kernels.items():
        work, calls = _work(func)
        if calls:
            together[var] = func
        else:
            (small if work <= SHARED else alone).append((work, var))
    shared = _shared(small)
    if len(shared) == 1:
        together.update({var: kernels[var] for var in shared.pop()})
    longest = sorted(alone, key=lambda item: -item[0])  # the longest work is begun first
    apart = [{var: kernels[var] for var in part} for part in [*([v] for _, v in longest), *shared]]
    with ThreadPoolExecutor(usable_cores()) as pool:
        objects = list(pool.map(compiled, range(len(apart)), apart))
    constants = dict(mod.attrs).get("const_name_to_constant", {}) if mod.attrs else {}
    with tvm.transform.PassContext(opt_level=opt_level):
        executable = _vmlink(
            builder,
            target.tvm(),
            tir_mod=tvm.IRModule(together),
            tir_pipeline=PIPELINE,
            ext_libs=modules,
            params=dict(constants),
        )
    return executable, objects


def _shared(small: list[tuple[int, tvm.ir.GlobalVar]]) -> list[list[tvm.ir.GlobalVar]]:
    """Kernels, each with its work, put together in their order up to :data:`SHARED`."""
    parts: list[list[tvm.ir.GlobalVar]] = []
    room = 0
    for work, var in small:
        if work > room:
            parts.append([])
            room = SHARED
        parts[-1].append(var)
        room -= work
    return parts


def _work(func: tirx.PrimFunc) -> tuple[int, bool]:
    """Loads from memory, and what any kernel takes, as a measure of LLVM's work; and whether it
    calls another function of its module."""
    calls = any(isinstance(call.op, tvm.ir.GlobalVar) for call in walk(func.body, Call))
    return 6 + len(walk(func.body, TensorLoad)), calls


__all__ = ["compile_objects"]
