"""Kernels for several devices to one library, with one virtual machine that starts all of them.

Kernels of CPUs become objects as for a CPU alone. Those of each other device are compiled apart:
what launches them is an object too, and their own code is a module in the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import GlobalVar

from burnish.compiler import cuda_library, opencl_library
from burnish.compiler.c_sources import compile_sources, sources_of
from burnish.compiler.kernel_objects import compile_objects
from burnish.passes.params import get_params, weight_vars
from burnish.passes.partition_graph import DEVICE
from burnish.passes.virtual_devices import memory_of
from burnish.targets.cpu import pool
from burnish.targets.cuda import called
from burnish.targets.cuda.resources import Resources
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.device_lowering import PIPELINE
from burnish.targets.hetero import HeteroTarget, Single
from burnish.targets.opencl.target import OpenclTarget
from burnish.targets.target import CpuTarget

Kernels = dict[GlobalVar, tirx.PrimFunc]


@dataclass(frozen=True)
class Library:
    """Where the library is, and what each CUDA kernel takes of each architecture."""

    path: Path
    resources: Mapping[str, tuple[Resources, ...]] = field(default_factory=dict)

    def details(self) -> dict[str, Any]:
        return cuda_library.Library(self.path, self.resources).details()


def build_hetero_library(
    mod: tvm.IRModule,
    target: HeteroTarget,
    folder: Path,
    compiler: str,
    link: Callable[[str, list[str], str], None],
    *,
    opt_level: int = 3,
) -> Library:
    """Link the library of a finished module, what ``pipeline.build_passes`` give.

    ``link`` links objects. Raises ``ValueError`` for kernels in a type their device has not.
    """
    mod = _announced(mod, target)
    objects: list[str] = []

    def elsewhere(kernels: Kernels) -> list[tvm.runtime.Module]:
        modules: list[tvm.runtime.Module] = []
        for number, (device, found) in enumerate(_apart(kernels, target).items()):
            built = _device_module(found, device, opt_level)
            path = folder / f"device{number}.o"
            built.write_to_file(str(path))
            objects.append(str(path))
            modules += built.imports
        return modules

    executable, own = compile_objects(
        mod, target.host, folder, opt_level=opt_level, elsewhere=elsewhere
    )
    objects += own
    if pool.AVAILABLE:
        objects += pool.compile_linked(compiler, folder)
    objects += called.compile_linked(cuda_library.called_functions(mod), compiler, folder)
    objects += compile_sources(sources_of(mod), compiler, folder)
    resources: dict[str, tuple[Resources, ...]] = {}
    cuda = next((p.target for p in target.places if isinstance(p.target, CudaTarget)), None)
    options: dict[str, Any] = {}
    if cuda is not None:
        options["fpack_imports"] = cuda_library.packing(cuda, resources)
    path = folder / "lib.so"
    executable.export_library(str(path), addons=[*objects], fcompile=link, cc=compiler, **options)
    for file in objects:
        Path(file).unlink()
    return Library(path, resources)


def weight_places(mod: tvm.IRModule, target: HeteroTarget) -> list[tuple[str, int]]:
    """Of each weight that ``main`` takes, in order: its name, and the number of its memory."""
    memories = [one.memory for one in target.memories]
    values = get_params(mod)
    return [
        (var.name, memories.index(memory_of(var.ty) or memories[0]))
        for var in weight_vars(mod)
        if var.name in values
    ]


def target_of(func: tirx.PrimFunc, target: HeteroTarget) -> Single:
    """The target of the device that a kernel is for; the host's for what says none."""
    device = (func.attrs or {}).get(DEVICE, None)
    return target.host if device is None else target.place(str(device)).target


def _announced(mod: tvm.IRModule, target: HeteroTarget) -> tvm.IRModule:
    """Loops of the host's kernels as its pool wants them."""
    if not pool.AVAILABLE:
        return mod
    own = {
        var: func
        for var, func in mod.functions.items()
        if isinstance(func, tirx.PrimFunc) and isinstance(target_of(func, target), CpuTarget)
    }
    announced = pool.announce_iterations(tvm.IRModule(own))
    functions = {**dict(mod.functions.items()), **dict(announced.functions.items())}
    return tvm.IRModule(functions, attrs=mod.attrs, global_infos=mod.global_infos)


def _apart(kernels: Kernels, target: HeteroTarget) -> dict[Single, Kernels]:
    """Take the kernels out that are not for a CPU, those of one target together."""
    found: dict[Single, Kernels] = {}
    for var, func in list(kernels.items()):
        device = target_of(func, target)
        if not isinstance(device, CpuTarget):
            found.setdefault(device, {})[var] = kernels.pop(var)
    return found


def _device_module(kernels: Kernels, target: Single, opt_level: int) -> tvm.runtime.Module:
    mod = tvm.IRModule(kernels)
    config: dict[str, Any] = {}
    if isinstance(target, OpenclTarget):
        opencl_library.check_types(mod, target)
    elif isinstance(target, CudaTarget):
        config["tirx.use_async_copy"] = target.capability >= 80
    with target.tvm(), tvm.transform.PassContext(opt_level=opt_level, config=config):
        return tirx.build(mod, target=target.tvm(), pipeline=PIPELINE)
