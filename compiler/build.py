"""Code generation: fused kernels in, a loaded executable out."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

import tvm
from tvm import tirx
from tvm.relax import transform as T

from burnish.compiler import pipeline
from burnish.compiler.errors import BuildError, wrap_errors
from burnish.compiler.kernel_objects import compile_objects
from burnish.compiler.linking import linker
from burnish.compiler.profile.kernel import Kernel
from burnish.compiler.profile.records import kernel_records
from burnish.compiler.tune.tasks import task_key
from burnish.passes.params import get_params, without_params
from burnish.targets.cpu import pool
from burnish.targets.cpu.schedule import RULE, schedule
from burnish.targets.target import CpuTarget


def build_library(
    mod: tvm.IRModule,
    target: CpuTarget,
    folder: Path,
    *,
    opt_level: int = 3,
    best: Mapping[int, tirx.PrimFunc] | None = None,
) -> tuple[Path, list[str], dict[str, Kernel]]:
    """Write the shared library of a fused module; its path, the weights' names in order, and a
    record of each kernel by name.

    ``main`` of the library takes the run-time inputs and one array of all weights. ``best``
    holds schedules to use instead of the default ones, by ``tune.tasks.task_key``.
    """
    chosen = best or {}

    def scheduled(func: tirx.PrimFunc) -> tirx.PrimFunc:
        found = chosen.get(task_key(func)) if chosen else None
        if found is None:
            return schedule(func, target)
        if RULE not in found.attrs:
            found = found.with_attr(RULE, "tuned")
        symbol = func.attrs.get("global_symbol", None)
        return found if symbol is None else found.with_attr("global_symbol", symbol)

    names = list(get_params(mod))
    compiler = linker(target)
    with wrap_errors(BuildError), target.tvm():
        bundled = without_params(T.BundleModelParams()(mod))
        finish = tvm.transform.Sequential(list(pipeline.build_passes(scheduled)))
        with tvm.transform.PassContext(opt_level=opt_level):
            ready = finish(bundled)
            executable, objects = compile_objects(
                pool.announce_iterations(ready) if pool.AVAILABLE else ready,
                target,
                folder,
                opt_level=opt_level,
            )
        path = folder / "lib.so"
        if pool.AVAILABLE:
            objects += pool.compile_linked(compiler, folder)
        executable.export_library(str(path), addons=[*objects], cc=compiler)
        for file in objects:
            Path(file).unlink()
        kernels = kernel_records(mod, ready)
    return path, names, kernels


class Owner:
    """What a temporary folder lives as long as."""


def temporary_folder(owner: object) -> Path:
    """A folder that goes when ``owner`` does."""
    folder = Path(tempfile.mkdtemp(prefix="burnish-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder
