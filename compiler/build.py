"""Code generation: fused kernels in, a loaded executable out."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx
from tvm.relax import transform as T
from tvm.support.cc import create_shared

from burnish.compiler import pipeline
from burnish.compiler.cuda_library import build_cuda_library
from burnish.compiler.errors import BuildError, wrap_errors
from burnish.compiler.hetero_library import build_hetero_library, target_of, weight_places
from burnish.compiler.kernel_arguments import settled_kernels
from burnish.compiler.kernel_objects import compile_objects
from burnish.compiler.linking import linker
from burnish.compiler.opencl_library import build_opencl_library
from burnish.compiler.profile.kernel import Kernel
from burnish.compiler.profile.records import kernel_records
from burnish.compiler.tune.tasks import task_key
from burnish.passes.params import get_params, without_params
from burnish.passes.partition_graph import DEVICE, regions
from burnish.passes.send_early import SendEarly
from burnish.passes.start_regions import StartRegions
from burnish.targets.choose import Target
from burnish.targets.cpu import pool
from burnish.targets.cpu.schedule import RULE, schedule
from burnish.targets.cuda import schedule as cuda_schedule
from burnish.targets.cuda.target import CudaTarget
from burnish.targets.hetero import HeteroTarget
from burnish.targets.opencl import schedule as opencl_schedule
from burnish.targets.opencl.target import OpenclTarget
from burnish.targets.target import CpuTarget


@dataclass(frozen=True)
class Built:
    """A shared library, the weights that its ``main`` takes as one array, in order, and a record
    of each kernel by name. ``details`` are what a GPU's compiler says of its kernels; ``memories``
    the number of the memory of each weight, on a target of several devices; ``one_set`` the set of
    cores that has all regions, if one has, on a target of such sets."""

    path: Path
    weights: list[str]
    kernels: dict[str, Kernel]
    details: dict[str, Any] = field(default_factory=dict)
    memories: tuple[int, ...] = ()
    one_set: str = ""


def build_library(
    mod: tvm.IRModule,
    target: Target,
    folder: Path,
    *,
    opt_level: int = 3,
    best: Mapping[int, tirx.PrimFunc] | None = None,
) -> Built:
    """Write the shared library of a fused module into ``folder``.

    ``main`` of the library takes the run-time inputs and one array of all weights. ``best``
    holds schedules to use instead of the default ones, by ``tune.tasks.task_key``.
    """
    names = list(get_params(mod))
    compiler = linker(target.host)
    details: dict[str, Any] = {}
    memories: tuple[int, ...] = ()
    one_set = ""
    with wrap_errors(BuildError), target.tvm():
        ready = scheduled(mod, target, opt_level=opt_level, best=best)
        if isinstance(target, CpuTarget):
            settled = settled_kernels(mod)
            path = _cpu_library(ready, target, folder, compiler, settled, opt_level)
        elif isinstance(target, OpenclTarget):
            path = build_opencl_library(ready, target, folder, compiler, opt_level=opt_level)
        elif isinstance(target, HeteroTarget):
            memories = tuple(memory for _, memory in weight_places(mod, target))
            one_set = _one_set(mod, target)
            made = build_hetero_library(
                ready, target, folder, compiler, _linked, opt_level=opt_level
            )
            path, details = made.path, made.details()
        else:
            library = build_cuda_library(ready, target, folder, compiler, opt_level=opt_level)
            path, details = library.path, library.details()
        kernels = kernel_records(mod, ready)
    return Built(path, names, kernels, details, memories, one_set)


def scheduled(
    mod: tvm.IRModule,
    target: Target,
    *,
    opt_level: int = 3,
    best: Mapping[int, tirx.PrimFunc] | None = None,
) -> tvm.IRModule:
    """A fused module with its kernels scheduled, ready for code generation."""
    chosen = best or {}

    def schedule_one(func: tirx.PrimFunc) -> tirx.PrimFunc:
        found = chosen.get(task_key(func)) if chosen else None
        if found is None:
            return _default(func, target)
        if RULE not in found.attrs:
            found = found.with_attr(RULE, "tuned")
        symbol = func.attrs.get("global_symbol", None)
        return found if symbol is None else found.with_attr("global_symbol", symbol)

    with target.tvm():
        bundled = without_params(T.BundleModelParams()(mod))
        graphs = isinstance(target, CudaTarget) and target.graphs
        together = _together(mod, target) if isinstance(target, HeteroTarget) else ()
        steps = (*together, *pipeline.build_passes(schedule_one, graphs))
        finish = tvm.transform.Sequential([*steps])
        recorded = {"relax.backend.use_cuda_graph": graphs}
        with tvm.transform.PassContext(opt_level=opt_level, config=recorded):
            return finish(bundled)


def _together(mod: tvm.IRModule, target: HeteroTarget) -> tuple[tvm.ir.transform.Pass, ...]:
    """How ``main`` of several devices starts them, and what it waits for."""
    if target.concurrent:
        return () if _one_set(mod, target) else (StartRegions(),)
    return (SendEarly(target),) if "opencl" in target.queued.values() else ()


def _one_set(mod: tvm.IRModule, target: HeteroTarget) -> str:
    """The set of cores that has all regions: they have nothing to run beside."""
    names = {str(one.attrs[DEVICE]) for one in regions(mod).values()}
    return names.pop() if target.concurrent and len(names) == 1 else ""


def _default(func: tirx.PrimFunc, target: Target) -> tirx.PrimFunc:
    if isinstance(target, HeteroTarget):
        own = target_of(func, target)
        with own.tvm():
            return _default(func, own)
    if isinstance(target, CpuTarget):
        return schedule(func, target)
    if isinstance(target, OpenclTarget):
        return opencl_schedule.schedule(func, target)
    return cuda_schedule.schedule(func, target)


def _cpu_library(
    ready: tvm.IRModule,
    target: CpuTarget,
    folder: Path,
    compiler: str,
    settled: Collection[str],
    opt_level: int,
) -> Path:
    if pool.AVAILABLE:
        ready = pool.announce_iterations(ready)
    executable, objects = compile_objects(
        ready, target, folder, settled=settled, opt_level=opt_level
    )
    path = folder / "lib.so"
    if pool.AVAILABLE:
        objects += pool.compile_linked(compiler, folder)
    executable.export_library(str(path), addons=[*objects], fcompile=_linked, cc=compiler)
    for file in objects:
        Path(file).unlink()
    return path


def _linked(path: str, objects: list[str], cc: str) -> None:
    """Link without C++'s libraries: no kernel needs them, and reading them is a third of it."""
    plain = ["-nodefaultlibs"] if pool.AVAILABLE else []
    create_shared(path, [*objects, *(["-lm", "-lc", "-lgcc"] if plain else [])], plain, cc=cc)


class Owner:
    """What a temporary folder lives as long as."""


def temporary_folder(owner: object) -> Path:
    """A folder that goes when ``owner`` does."""
    folder = Path(tempfile.mkdtemp(prefix="burnish-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder
