"""The chain: import, optimize, tune, build. One line a stage; each can be called alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from burnish.compiler import compile_cache, recipe
from burnish.compiler.build import Owner, build_library, temporary_folder
from burnish.compiler.cache_key import NotCachedError, cache_key, content_hash
from burnish.compiler.compiled import Compiled
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import ConfigError, TargetError, wrap_errors
from burnish.compiler.gate import Gate
from burnish.compiler.graphs import with_graphs
from burnish.compiler.importers import LoadedModel, import_loaded, load_model
from burnish.compiler.importers.files import Params
from burnish.compiler.libraries import AUTO, check_libraries
from burnish.compiler.optimizer import lowered, run_passes
from burnish.compiler.pipeline import graph_phases
from burnish.compiler.placed import check_memory, check_placement, of_devices
from burnish.compiler.placement.by_cost import by_cost
from burnish.compiler.precision import check_precision, in_precision
from burnish.compiler.resolved import check_resolved, resolve
from burnish.compiler.stages import Imported, Optimized, Source, Tuned, ir_text
from burnish.compiler.tensors import aligned
from burnish.compiler.tune import Progress
from burnish.compiler.tune.tasks import schedule_key
from burnish.compiler.waterfall import Report
from burnish.passes.params import get_params
from burnish.targets.choose import Target, check_described, choose_target, resolved_target
from burnish.targets.cuda.target import CudaTarget


def compile(
    model: Any,
    example_inputs: Any = None,
    target: str | Target = "cpu",
    *,
    dynamic: Mapping[str, Any] | None = None,
    params: Params = None,
    config: CompileConfig | None = None,
    cache: bool = True,
    **fields: Any,
) -> Compiled:
    """Compile a model.

    ``model`` is a ``torch.nn.Module``, a ``torch.export.ExportedProgram``, an
    ``onnx.ModelProto``, a Keras model, or a path (``.onnx``, ``.pt2``, ``.keras``, ``.tflite``, a
    SavedModel's folder, or a Relay module's ``.json`` or ``.relay`` with its ``params`` given or
    beside it). ``example_inputs`` is what it is called with. ``dynamic`` names sizes
    that stay open, ``{"x": {0: "batch"}}``. ``fields`` override those of ``config``: ``prune``,
    ``quantize``, ``tune``, ``precision``, ``threads``, ``passes``, ``evaluate`` and the rest of
    :class:`~burnish.compiler.config.CompileConfig`.
    ``cache=False`` neither takes the finished model from the compile cache nor keeps it there
    (:mod:`burnish.compiler.compile_cache`); ``report.cache`` says what the cache did.

    Raises a :class:`~burnish.compiler.errors.BurnishError` that says what failed, where, and
    what to do instead.
    """
    settings = _settings(config, fields)
    cpu = target_for(target, settings)
    settings.check_registered()
    return compile_in_stages(
        model, example_inputs, cpu, settings, dynamic, params=params, cache=cache
    )


def compile_in_stages(
    model: Any,
    example_inputs: Any,
    target: str | Target,
    config: CompileConfig,
    dynamic: Mapping[str, Any] | None,
    *,
    params: Params = None,
    cache: bool = True,
    during: Callable[[str], AbstractContextManager[None]] = lambda stage: nullcontext(),
) -> Compiled:
    """:func:`compile`, each stage but tuning inside the context ``during(its name)``."""
    cpu = target_for(target, config)
    check_memory(config, cpu)
    start = time.perf_counter()
    with during("reading"):
        loaded = load_model(model, example_inputs, dynamic=dynamic, params=params)
        key, said = _key(cache, loaded, example_inputs, dynamic, cpu, config)
        read = time.perf_counter()
        found = compile_cache.load(key) if key is not None else None
    if found is not None:
        found.target, found.config = cpu, config
        found.source = replace(found.source, example_inputs=_examples(example_inputs))
        took = sum(found.report.seconds.values())
        seconds = {"import": read - start, "cache": time.perf_counter() - read}
        said = f"taken from the cache; compiling took {took:.1f} s"
        found.report = replace(found.report, seconds=seconds, cache=said)
        return found
    with during("importing"):
        imported = _import(loaded, example_inputs, dynamic, config.fold_onnx, read - start)
    with during("optimizing"):
        optimized = optimize(imported, cpu, config=config)
    tuned = tune(optimized)
    with during("building"):
        compiled = build(tuned)
        if key is not None:
            said = compile_cache.keep(key, compiled)
    compiled.report = replace(compiled.report, cache=said)
    return compiled


def _key(
    cache: bool,
    loaded: LoadedModel,
    example_inputs: Any,
    dynamic: Mapping[str, Any] | None,
    target: Target,
    config: CompileConfig,
) -> tuple[str | None, str]:
    """The key in the compile cache; else none, and why in words."""
    if not cache or compile_cache.limit() == 0:
        return None, ""
    try:
        return cache_key(loaded, example_inputs, dynamic, target, config), ""
    except NotCachedError as error:
        return None, f"not cached: {error}"


def import_model(
    model: Any,
    example_inputs: Any = None,
    *,
    dynamic: Mapping[str, Any] | None = None,
    fold: bool = True,
    params: Params = None,
) -> Imported:
    """Read a model into graph IR; arguments as for :func:`compile`."""
    start = time.perf_counter()
    loaded = load_model(model, example_inputs, dynamic=dynamic, params=params)
    return _import(loaded, example_inputs, dynamic, fold, time.perf_counter() - start)


def _import(
    loaded: LoadedModel,
    example_inputs: Any,
    dynamic: Mapping[str, Any] | None,
    fold: bool,
    seconds: float,
) -> Imported:
    """The graph of a model that took ``seconds`` to load."""
    start = time.perf_counter()
    read = import_loaded(loaded, example_inputs, dynamic=dynamic, fold=fold)
    source = Source(read.source_hash, read.kind, _examples(example_inputs))
    report = Report().extended(**{"import": seconds + time.perf_counter() - start})
    return Imported(read.mod, read.signature, source, report)


def optimize(
    imported: Imported,
    target: str | Target = "cpu",
    *,
    config: CompileConfig | None = None,
    **fields: Any,
) -> Optimized:
    """Run the pipeline's passes: graph in, fused kernels out.

    With ``do_no_harm`` the weight passes and the user's own are measured before and after, and
    one that harmed is undone.
    """
    settings = _settings(config, fields)
    cpu = target_for(target, settings)
    check_memory(settings, cpu)
    check_resolved(settings, imported.source.hash)
    start = time.perf_counter()
    placed = by_cost(cpu, settings, imported)
    with Gate(imported, cpu, settings) as gate:
        graph, mod, rows = run_passes(imported, cpu, settings, gate, placed)
    if placed is not None:
        settings, rows = placed.config, placed.told(rows)
    if AUTO in settings.libraries and isinstance(cpu, CudaTarget):
        from burnish.compiler.library_choice import settled

        settings = settled(graph, cpu, settings)
        mod = lowered(graph, cpu, graph_phases(cpu, settings))
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
        settings = settings.overridden(tune=config, resolved=None)
    if settings.tune is None:
        return Tuned(optimized, {}, optimized.report)
    if settings.resolved is not None:
        from burnish.compiler.tuning import resolved_kernels

        best, row, records = resolved_kernels(optimized, settings)
        return Tuned(optimized, best, optimized.report.extended(row), records=records)
    why = optimized.target.why_not_here()
    if why:
        raise TargetError(
            f"tuning runs kernels for {optimized.target.name!r} on this machine, but {why}: "
            "tune on such a machine",
            stage="tune",
        )
    from burnish.compiler.tuning import tuned_kernels

    start = time.perf_counter()
    best, row, summary, records = tuned_kernels(optimized, settings, progress)
    report = optimized.report.extended(row, tune=time.perf_counter() - start)
    asked = replace(optimized, config=settings)
    return Tuned(asked, best, report, summary, records)


def build(stage: Tuned | Optimized) -> Compiled:
    """Generate code and load it."""
    tuned = stage if isinstance(stage, Tuned) else Tuned(stage, {}, stage.report)
    optimized = tuned.optimized
    start = time.perf_counter()
    owner = Owner()
    folder = temporary_folder(owner)
    built = build_library(
        optimized.mod,
        optimized.target,
        folder,
        opt_level=optimized.config.opt_level,
        best=tuned.best,
    )
    values = get_params(optimized.mod)
    report = tuned.report.extended(build=time.perf_counter() - start)
    report = replace(report, resources=built.details)
    config = optimized.config
    kernels = {task: schedule_key(func) for task, func in tuned.best.items()}
    resolved = resolve(config, optimized.target, optimized.source.hash, report.rows, kernels)
    calibration = config.calibration_data()
    source = replace(
        optimized.source,
        calibration=None if calibration is None else content_hash(calibration),
        tuning=tuned.records,
    )
    compiled = Compiled(
        built.path,
        {name: aligned(values[name].numpy()) for name in built.weights},
        optimized.signature,
        optimized.target,
        config,
        report,
        source,
        ir_text(optimized.mod),
        recipe=recipe.portable(resolved).to_toml(drop_unnamed=True),
        kernels=built.kernels,
        memories=built.memories,
        one_set=built.one_set,
    )
    compiled.keep_alive = owner
    return compiled


def _settings(config: CompileConfig | None, fields: Mapping[str, Any]) -> CompileConfig:
    if config is not None and not isinstance(config, CompileConfig):
        raise ConfigError(f"config must be a CompileConfig, got {type(config).__name__}")
    base = config if config is not None else CompileConfig()
    return base.overridden(**fields) if fields else base


def target_for(target: str | Target, config: CompileConfig) -> Target:
    """The target by its name, or of the devices of ``config`` where it is just ``cpu``.

    It has the threads and is for the precision of ``config``. Raises
    :class:`~burnish.compiler.errors.TargetError` listing those that are known.
    """
    with wrap_errors(TargetError):
        target = of_devices(target, config.devices)
        resolved = config.resolved.target if config.resolved is not None else {}
        cpu = resolved_target(target, resolved) if resolved else choose_target(target)
        cpu = cpu.with_threads(config.threads)
    check_precision(config.precision, cpu)
    check_libraries(config.libraries, cpu)
    check_placement(config.placement, cpu)
    found = with_graphs(config.cuda_graphs, in_precision(config.precision, cpu))
    if resolved:
        with wrap_errors(TargetError):
            check_described(found, resolved)
    return found


def _examples(inputs: Any) -> tuple[Any, ...]:
    if inputs is None:
        return ()
    if isinstance(inputs, Mapping):
        return (dict(inputs),)
    if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes):
        return tuple(inputs)
    return (inputs,)


__all__ = ["build", "compile", "import_model", "optimize", "tune"]
