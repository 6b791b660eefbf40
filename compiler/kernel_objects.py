"""Kernels to object files, one each, as many at once as there are cores.

TVM lets go of Python's lock while it lowers and while LLVM works, so threads are enough. Kernels
apart also take less time in all than together: some of TVM's passes walk the whole module once a
kernel.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tvm
from tvm import relax, tirx
from tvm.ir import Call, TensorLoad
from tvm.relax.vm_build import _vmcodegen, _vmlink
from tvm.runtime import Executable

from burnish.targets.cpu.lowering import PIPELINE
from burnish.targets.cpu.stages import walk
from burnish.targets.target import CpuTarget, usable_cores

STUB = "burnish_stub"
"""A function that is never called: the module by which TVM knows what to link for."""


def compile_objects(
    mod: tvm.IRModule, target: CpuTarget, folder: Path, *, opt_level: int = 3
) -> tuple[Executable, list[str]]:
    """The virtual machine's code of a finished module, and the object files to link it with.

    ``mod`` is what ``pipeline.build_passes`` give. Linking, ``executable.export_library(path,
    addons=objects)``, makes the whole.
    """
    builder = relax.ExecBuilder()
    left = _vmcodegen(builder, mod)
    kernels = {v: f for v, f in left.functions.items() if isinstance(f, tirx.PrimFunc)}
    stub = tirx.PrimFunc([], tirx.Evaluate(tirx.const(0, "int32")))
    together = {tvm.ir.GlobalVar(STUB): stub.with_attr("global_symbol", STUB)}

    def compiled(number: int, functions: dict[tvm.ir.GlobalVar, tirx.PrimFunc]) -> str:
        path = folder / f"kernel{number}.o"
        with target.tvm(), tvm.transform.PassContext(opt_level=opt_level):
            built = tirx.build(tvm.IRModule(functions), target=target.tvm(), pipeline=PIPELINE)
            built.write_to_file(str(path))
        return str(path)

    alone = []
    seen = {var: _work(func) for var, func in kernels.items()}
    for var in sorted(kernels, key=lambda var: -seen[var][0]):  # the longest work is begun first
        if seen[var][1]:
            together[var] = kernels[var]
        else:
            alone.append({var: kernels[var]})
    with ThreadPoolExecutor(usable_cores()) as pool:
        objects = list(pool.map(compiled, range(len(alone)), alone))
    constants = dict(mod.attrs).get("const_name_to_constant", {}) if mod.attrs else {}
    executable = _vmlink(
        builder,
        target.tvm(),
        tir_mod=tvm.IRModule(together),
        tir_pipeline=PIPELINE,
        params=dict(constants),
    )
    return executable, objects


def _work(func: tirx.PrimFunc) -> tuple[int, bool]:
    """Loads from memory, as a measure; and whether it calls another function of its module."""
    calls = any(isinstance(call.op, tvm.ir.GlobalVar) for call in walk(func.body, Call))
    return len(walk(func.body, TensorLoad)), calls


__all__ = ["compile_objects"]
