"""From a model to the processes that run it together: split, compile each rank, start."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tvm

from burnish.compiler.config import CompileConfig
from burnish.compiler.driver import build, import_model, optimize, target_for, tune
from burnish.compiler.errors import ConfigError, PassError, wrap_errors
from burnish.compiler.importers.files import Params
from burnish.compiler.parallel.group import register
from burnish.compiler.parallel.plan import Ranks
from burnish.compiler.parallel.report import Collective, ParallelReport, collectives_of
from burnish.compiler.parallel.run import TIMEOUT_S, TensorParallel
from burnish.compiler.pipelines.core_sets import CoreSet, parse_devices
from burnish.compiler.pipelines.make import cleaned
from burnish.compiler.pipelines.pipeline import check_limit
from burnish.compiler.stages import Imported, Source
from burnish.passes.params import param_bytes
from burnish.passes.split_tensors import SplitTensors
from burnish.runtime.cores import usable_cores

LEAST = 1 << 14


def tensor_parallel(
    model: Any,
    inputs: Any = None,
    devices: Sequence[str] = ("cpu@0", "cpu@1"),
    *,
    target: str = "cpu",
    least: int = LEAST,
    config: CompileConfig | None = None,
    params: Params = None,
    folder: str | Path | None = None,
    timeout_s: float = TIMEOUT_S,
    said: Callable[[str], object] = lambda text: None,
    **fields: Any,
) -> TensorParallel:
    """A model whose large weights are split over ``devices``, a process each.

    ``model`` is anything that :func:`burnish.compile` takes, or an ``Imported``; ``inputs`` what it
    is called with. ``devices`` are ``cpu`` or cores of it (``cpu@0``, ``cpu@0-3``), one a rank;
    ``cpu`` may be there several times, and its cores are then shared. Weights of fewer than
    ``least`` elements are whole on every rank. ``folder`` keeps the artifacts for
    :func:`~burnish.compiler.parallel.run.load_tensor_parallel`. A call may take ``timeout_s``
    seconds. ``fields`` and ``config`` are as for ``burnish.compile``; ``said`` is told what is
    being done.

    Raises a :class:`~burnish.compiler.errors.BurnishError` that says what failed and what to do.
    """
    placed = parse_devices(devices, here=True)
    settings = (config or CompileConfig()).overridden(**fields)
    _check_settings(settings, target)
    check_limit(timeout_s)
    if isinstance(least, bool) or not isinstance(least, int) or least < 1:
        raise ConfigError(f"least must be a whole number of elements, 1 or more, got {least!r}")
    said("importing")
    imported = (
        model
        if isinstance(model, Imported)
        else import_model(model, inputs, params=params, fold=settings.fold_onnx)
    )
    if not imported.signature.static:
        open_sizes = sorted(imported.signature.symbols) or [
            str(s) for s in imported.signature.inputs
        ]
        raise ConfigError(
            f"the model has the open sizes {open_sizes}, and the ranks' memory is of fixed ones: "
            "import it with the shapes that it is called with"
        )
    owner = None
    if folder is None:
        owner = tempfile.TemporaryDirectory(prefix="burnish-parallel-")
    where = Path(owner.name if owner is not None else str(folder))
    try:
        with wrap_errors(ConfigError):
            where.mkdir(parents=True, exist_ok=True)
        threads = tuple(_threads(device, len(placed)) for device in placed)
        report = _compiled(imported, placed, threads, target, settings, least, where, said)
        said("starting the ranks")
        ranks = Ranks(imported.signature, placed, threads, report)
        ranks.save(where)
        return TensorParallel(where, ranks, timeout_s, owner)
    except BaseException:
        if owner is not None:
            owner.cleanup()
        raise


def split_model(
    imported: Imported, parts: int, target: str = "cpu", least: int = LEAST
) -> tuple[tvm.IRModule, ...]:
    """The module of every rank, from the graph after its clean-up."""
    graph = cleaned(imported, target)
    with wrap_errors(PassError, pass_name="SplitTensors"):
        return tuple(_split(graph, rank, parts, least) for rank in range(parts))


def _split(graph: tvm.IRModule, rank: int, parts: int, least: int) -> tvm.IRModule:
    # TVM's decorator makes a class whose calls mypy does not know.
    step: Any = SplitTensors(parts, rank, least)
    return step(graph)


def _compiled(
    imported: Imported,
    devices: Sequence[CoreSet],
    threads: Sequence[int],
    target: str,
    settings: CompileConfig,
    least: int,
    folder: Path,
    said: Callable[[str], object],
) -> ParallelReport:
    """Artifacts of all ranks, written to ``folder``."""
    register()  # a compiled model looks for its functions when it is made
    graph = cleaned(imported, target)
    parts = len(devices)
    sizes, stored = [], []
    collectives: tuple[Collective, ...] = ()
    for rank, count in enumerate(threads):
        said(f"compiling rank {rank + 1} of {parts} for {devices[rank].name}")
        with wrap_errors(PassError, pass_name="SplitTensors"):
            part = _split(graph, rank, parts, least)
        text = f"{imported.source.hash} rank {rank} of {parts} least {least}"
        source = Source(hashlib.sha256(text.encode()).hexdigest(), imported.source.kind)
        config = settings.overridden(do_no_harm=False, threads=count)
        made = Imported(part, imported.signature, source)
        compiled = build(tune(optimize(made, target, config=config)))
        compiled.save(folder / Ranks.artifact(rank))
        sizes.append(param_bytes(part))
        stored.append(compiled.params_bytes)
        collectives = collectives_of(part)
    names = tuple(device.name for device in devices)
    return ParallelReport(names, param_bytes(graph), tuple(sizes), tuple(stored), collectives)


def _threads(device: CoreSet, parts: int) -> int:
    return device.threads if device.cores else max(1, usable_cores() // parts)


def _check_settings(settings: CompileConfig, target: str) -> None:
    if settings.resolved is not None:
        raise ConfigError("a resolved recipe is one model's: give the ranks their recipe without")
    if settings.threads is not None:
        raise ConfigError("a rank has a thread for each core of its device: give no threads")
    if settings.prune is not None or settings.quantize is not None:
        raise ConfigError(
            "a model is split with its weights as they are: prune and quantize have no part in "
            "tensor parallel, compile the whole model with them or split it without"
        )
    if settings.memory:
        raise ConfigError(
            "every rank holds its share of the weights whatever the limits: leave memory out, and "
            "give more devices where a share is too large"
        )
    if settings.devices:
        raise ConfigError(
            "the recipe's devices are those of one executable: leave them out there, and give the "
            "ranks theirs"
        )
    if target_for(target, settings).kind != "cpu":
        raise ConfigError(f"ranks run on CPU cores; the target is {target!r}")


__all__ = ["split_model", "tensor_parallel"]
