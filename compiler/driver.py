"""The chain: import, optimize, tune, build. One line a stage; each can be called alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from burnish.compiler.build import build_library, temporary_folder
from burnish.compiler.compiled import Compiled
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import ConfigError, TargetError, wrap_errors
from burnish.compiler.gate import Gate
from burnish.compiler.importers import import_model as read_model
from burnish.compiler.optimizer import run_passes
from burnish.compiler.stages import Imported, Optimized, Source, Tuned, ir_text
from burnish.compiler.tensors import aligned
from burnish.compiler.tune import Progress
from burnish.compiler.waterfall import Report
from burnish.passes.params import get_params
from burnish.targets.target import CpuTarget, parse_target


def compile(
    model: Any,
    example_inputs: Any = None,
    target: str | CpuTarget = "cpu",
    *,
    dynamic: Mapping[str, Any] | None = None,
    config: CompileConfig | None = None,
    **fields: Any,
) -> Compiled:
    """Compile a model.

    ``model`` is a ``torch.nn.Module``, a ``torch.export.ExportedProgram``, an
    ``onnx.ModelProto``, or a path to an ``.onnx`` or ``.pt2`` file. ``example_inputs`` is what it
    is called with. ``dynamic`` names sizes that stay open, ``{"x": {0: "batch"}}``. ``fields``
    override those of ``config``: ``prune``, ``quantize``, ``tune``, ``threads``, ``passes``,
    ``evaluate`` and the rest of :class:`~burnish.compiler.config.CompileConfig`.

    Raises a :class:`~burnish.compiler.errors.BurnishError` that says what failed, where, and
    what to do instead.
    """
    settings = _settings(config, fields)
    cpu = _target(target, settings)
    settings.check_registered()
    imported = import_model(model, example_inputs, dynamic=dynamic, fold=settings.fold_onnx)
    optimized = optimize(imported, cpu, config=settings)
    tuned = tune(optimized)
    return build(tuned)


def import_model(
    model: Any,
    example_inputs: Any = None,
    *,
    dynamic: Mapping[str, Any] | None = None,
    fold: bool = True,
) -> Imported:
    """Read a model into graph IR; arguments as for :func:`compile`."""
    start = time.perf_counter()
    read = read_model(model, example_inputs, dynamic=dynamic, fold=fold)
    source = Source(read.source_hash, read.kind, _examples(example_inputs))
    report = Report().extended(**{"import": time.perf_counter() - start})
    return Imported(read.mod, read.signature, source, report)


def optimize(
    imported: Imported,
    target: str | CpuTarget = "cpu",
    *,
    config: CompileConfig | None = None,
    **fields: Any,
) -> Optimized:
    """Run the pipeline's passes: graph in, fused kernels out.

    With ``do_no_harm`` the weight passes and the user's own are measured before and after, and
    one that harmed is undone.
    """
    settings = _settings(config, fields)
    cpu = _target(target, settings)
    start = time.perf_counter()
    with Gate(imported, cpu, settings) as gate:
        graph, mod, rows = run_passes(imported, cpu, settings, gate)
    report = imported.report.extended(*rows, optimize=time.perf_counter() - start)
    return Optimized(mod, graph, imported.signature, imported.source, cpu, settings, report)


def tune(optimized: Optimized, config: Any = None, *, progress: Progress | None = None) -> Tuned:
    """Search faster schedules for the kernels, where the configuration asks for it.

    ``config`` overrides the ``tune`` of the optimized module's own configuration. ``progress``
    is called with steps done, steps in all, seconds left and a message; without one, a bar is
    drawn on stderr.
    """
    settings = optimized.config
    if config is not None:
        settings = settings.overridden(tune=config)
    if settings.tune is None:
        return Tuned(optimized, {}, optimized.report)
    why = optimized.target.why_not_here()
    if why:
        raise TargetError(
            f"tuning runs kernels for {optimized.target.name!r} on this machine, but {why}: "
            "tune on such a machine",
            stage="tune",
        )
    from burnish.compiler.tuning import tuned_kernels

    start = time.perf_counter()
    best, row, summary = tuned_kernels(optimized, settings, progress)
    report = optimized.report.extended(row, tune=time.perf_counter() - start)
    return Tuned(optimized, best, report, summary)


def build(stage: Tuned | Optimized) -> Compiled:
    """Generate code and load it."""
    tuned = stage if isinstance(stage, Tuned) else Tuned(stage, {}, stage.report)
    optimized = tuned.optimized
    start = time.perf_counter()
    owner = _Owner()
    folder = temporary_folder(owner)
    library, names, kernels = build_library(
        optimized.mod,
        optimized.target,
        folder,
        opt_level=optimized.config.opt_level,
        best=tuned.best,
    )
    values = get_params(optimized.mod)
    report = tuned.report.extended(build=time.perf_counter() - start)
    compiled = Compiled(
        library,
        {name: aligned(values[name].numpy()) for name in names},
        optimized.signature,
        optimized.target,
        optimized.config,
        report,
        optimized.source,
        ir_text(optimized.mod),
        kernels=kernels,
    )
    compiled.keep_alive = owner
    return compiled


class _Owner:
    """What a temporary folder lives as long as."""


def _settings(config: CompileConfig | None, fields: Mapping[str, Any]) -> CompileConfig:
    if config is not None and not isinstance(config, CompileConfig):
        raise ConfigError(f"config must be a CompileConfig, got {type(config).__name__}")
    base = config if config is not None else CompileConfig()
    return base.overridden(**fields) if fields else base


def _target(target: str | CpuTarget, config: CompileConfig) -> CpuTarget:
    with wrap_errors(TargetError):
        return parse_target(target).with_threads(config.threads)


def _examples(inputs: Any) -> tuple[Any, ...]:
    if inputs is None:
        return ()
    if isinstance(inputs, Mapping):
        return (dict(inputs),)
    if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes):
        return tuple(inputs)
    return (inputs,)


__all__ = ["build", "compile", "import_model", "optimize", "tune"]
