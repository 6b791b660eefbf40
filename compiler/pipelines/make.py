"""From a model to a pipeline: cut, compile each stage, start."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from burnish.compiler.compiled import Compiled
from burnish.compiler.config import CompileConfig
from burnish.compiler.driver import build, import_model, optimize, target_for, tune
from burnish.compiler.errors import (
    ConfigError,
    ImportModelError,
    InvalidInputError,
    PassError,
    wrap_errors,
)
from burnish.compiler.gate import Gate
from burnish.compiler.importers.files import Params
from burnish.compiler.optimizer import LOWERING, graph_passes, run_pass
from burnish.compiler.pipeline import graph_phases
from burnish.compiler.pipelines.batches import batch_size, check_joinable, check_whole
from burnish.compiler.pipelines.core_sets import CoreSet, parse_devices
from burnish.compiler.pipelines.costs import (
    COSTS,
    Said,
    chosen_number,
    stage_problem,
    stages_of,
)
from burnish.compiler.pipelines.frames import bytes_of
from burnish.compiler.pipelines.pipeline import (
    RESTARTS,
    TIMEOUT_S,
    Pipeline,
    check_running,
)
from burnish.compiler.pipelines.plan import Plan, StagePlan
from burnish.compiler.placement.problem import Problem
from burnish.compiler.signature import Signature, TensorSpec
from burnish.compiler.stages import Imported, Source
from burnish.passes.cut_stages import Cut, Stage, cut_stages, in_order_of_stages
from burnish.passes.params import num_inputs
from burnish.runtime import trees

HANDOFF_S = {"threads": 3e-5, "processes": 1e-4, "ray": 2e-3}
"""What handing a micro-batch to the next stage takes, about."""


def pipeline(
    model: Any,
    inputs: Any = None,
    devices: Sequence[str] = ("cpu@0", "cpu@1"),
    micro_batches: int | str = "auto",
    engine: str = "processes",
    *,
    target: str = "cpu",
    whole: Sequence[str] = (),
    cuts: Sequence[int | str] | None = None,
    costs: str = "measured",
    config: CompileConfig | None = None,
    params: Params = None,
    folder: str | Path | None = None,
    name: str = "model",
    timeout_s: float = TIMEOUT_S,
    restarts: int = RESTARTS,
    frames: int | None = None,
    address: str | None = None,
    said: Said = lambda text: None,
    **fields: Any,
) -> Pipeline:
    """A model as consecutive stages, one a device, through which micro-batches go.

    ``model`` is anything that :func:`burnish.compile` takes, or an ``Imported``; ``inputs`` a batch
    that it is called with. ``devices`` are ``cpu`` or cores of it (``cpu@0``, ``cpu@0-3``), in
    the order of the stages. The batch, axis 0 of every input but those named in ``whole``, is
    split into ``micro_batches``, which must divide it; ``"auto"`` chooses by the operators' costs.
    A model's rows must not know of each other. ``cuts`` says where to cut (as
    :func:`burnish.passes.cut_stages.cut_stages`); by default the costs do.

    ``costs`` are those of the operators: "measured", each alone and once a machine (which takes a
    while the first time), or "counted" from what they compute and move. ``memory`` among the
    ``fields`` limits what a stage's device holds, by device.

    ``engine`` is "processes" (shared memory), "threads" or "ray" (``address`` of a cluster, else
    one is started here). ``folder`` keeps the plan and the artifacts for
    :func:`~burnish.compiler.pipelines.pipeline.load_pipeline`. A stage may take ``timeout_s``
    seconds for a micro-batch, and fail ``restarts`` times in a row; ``frames`` bounds the
    micro-batches in flight. ``fields`` and ``config`` are as for ``burnish.compile``; ``said`` is
    told what is being done.

    Raises a :class:`~burnish.compiler.errors.BurnishError` that says what failed and what to do.
    """
    check_running(engine, timeout_s, restarts, frames)
    if costs not in COSTS:
        raise ConfigError(f"costs {costs!r} are unknown; known: {', '.join(COSTS)}")
    placed = parse_devices(devices, here=engine != "ray")
    settings = (config or CompileConfig()).overridden(**fields)
    _check_settings(settings, target)
    asked = _asked(micro_batches)
    if cuts is not None and len(cuts) != len(placed) - 1:
        raise ConfigError(f"{len(placed)} devices are {len(placed) - 1} cuts, got {list(cuts)}")
    owner = None
    if folder is None:
        owner = tempfile.TemporaryDirectory(prefix="burnish-pipeline-")
    where = Path(owner.name if owner is not None else str(folder))
    try:
        with wrap_errors(ConfigError):
            where.mkdir(parents=True, exist_ok=True)
        plan = _planned(
            model, inputs, placed, asked, target, whole, cuts, costs, settings, params, where, name,
            HANDOFF_S[engine], said,
        )  # fmt: skip
        said("starting the stages")
        return Pipeline(
            plan, where, engine=engine, timeout_s=timeout_s, restarts=restarts, frames=frames,
            address=address, owner=owner,
        )  # fmt: skip
    except BaseException:
        if owner is not None:
            owner.cleanup()
        raise


def _planned(
    model: Any,
    inputs: Any,
    devices: Sequence[CoreSet],
    asked: int | None,
    target: str,
    whole: Sequence[str],
    cuts: Sequence[int | str] | None,
    costs: str,
    settings: CompileConfig,
    params: Params,
    folder: Path,
    name: str,
    handoff: float,
    said: Said,
) -> Plan:
    """The plan, its artifacts written to ``folder``."""
    said("importing")
    ready = isinstance(model, Imported)
    imported = (
        model if ready else import_model(model, inputs, params=params, fold=settings.fold_onnx)
    )
    _check_static(imported.signature)
    whole = check_whole(imported.signature, whole)
    shapes = [_Shaped(spec.shape) for spec in imported.signature.inputs]
    if ready and asked not in (None, 1):
        raise ConfigError(
            "an imported model is of one shape: import it with the rows of a micro-batch, and "
            "give micro_batches=1"
        )
    count, why = 1, "an imported model is one micro-batch"
    if not ready:
        batch = 1 if asked == 1 else batch_size(imported.signature, shapes, whole)
        if asked is not None and batch % asked:
            raise ConfigError(f"{asked} micro-batches do not divide a batch of {batch} rows")
        count, why = asked or 1, "asked for" if asked is not None else "a batch is one row"
        if asked is None and batch > 1:
            problem = stage_problem(
                cleaned(imported, target), devices, settings, target, costs, handoff, said
            )
            chosen = chosen_number(problem, batch, devices)
            count, why = chosen.micro_batches, chosen.why
    if count > 1:
        said(f"importing a micro-batch, one of {count}")
        part = _micro(imported.signature, inputs, batch // count, whole)
        found = _again(model, part, params, settings, batch // count, whole)
        if found is not None:
            imported = found
            check_joinable(imported.signature, batch // count)
        elif asked is None:
            count, why = 1, f"the model is of a fixed batch of {batch} rows"
        else:
            raise ConfigError(
                f"the model is of a fixed batch of {batch} rows and cannot be split into {asked} "
                "micro-batches: export it with an open batch, or with the rows of one micro-batch"
            )
    graph = _graph(imported, target, settings)
    problem = stage_problem(graph, devices, settings, target, costs, handoff, said)
    best, of_stage = stages_of(graph, problem, devices)
    seconds = [stage.seconds for stage in best.stages]
    with wrap_errors(PassError, pass_name="CutStages"):
        if cuts is None:
            graph, points = in_order_of_stages(graph, of_stage)
            cut = cut_stages(graph, points)
        else:
            cut = cut_stages(graph, cuts)
            seconds = _seconds(cut, graph, problem)
    rows = next(
        (int(s.shape[0]) for s in imported.signature.inputs if s.name not in whole and s.shape), 1
    )
    values = _values(cut, imported.signature)
    stages = _stages(cut, seconds, devices, imported, target, settings, folder, said)
    plan = Plan(
        name,
        imported.signature,
        rows, count, why, whole, values, cut.inputs, cut.results, stages,
        COSTS[costs],
    )  # fmt: skip
    plan.save(folder)
    return plan


def _stages(
    cut: Cut,
    seconds: Sequence[float],
    devices: Sequence[CoreSet],
    imported: Imported,
    target: str,
    settings: CompileConfig,
    folder: Path,
    said: Said,
) -> tuple[StagePlan, ...]:
    found = []
    for number, (stage, device) in enumerate(zip(cut.stages, devices, strict=True)):
        said(f"compiling stage {number + 1} of {len(devices)} for {device.name}")
        artifact = f"stage{number}.burnish"
        compiled = _compiled(stage, number, imported, target, device, settings)
        compiled.save(folder / artifact)
        found.append(
            StagePlan(
                device=device,
                artifact=artifact,
                takes=stage.takes,
                gives=stage.gives,
                seconds=seconds[number],
                operators=len(compiled.kernels),
                weight_bytes=compiled.params_bytes,
                sent_bytes=sum(map(bytes_of, compiled.signature.outputs)),
            )
        )
    return tuple(found)


def _seconds(cut: Cut, graph: tvm.IRModule, problem: Problem) -> list[float]:
    """The operators' seconds in each stage of a cut that was asked for."""
    stage = {name: at for at, one in enumerate(cut.stages) for name in one.computes}
    found = [0.0] * len(cut.stages)
    names = [device.name for device in problem.devices]
    for node in problem.nodes:
        at = stage.get(node.name, 0)
        found[at] += node.seconds[names[at]]
    return found


def _compiled(
    stage: Stage,
    number: int,
    imported: Imported,
    target: str,
    device: CoreSet,
    settings: CompileConfig,
) -> Compiled:
    """A stage's artifact. Its weights were pruned and quantized before the cut."""
    own = tuple(extra for extra in settings.passes if (extra.phase or "") in LOWERING)
    config = settings.overridden(
        prune=None, quantize=None, memory={}, calibration=None, evaluate=None, passes=own,
        do_no_harm=False, threads=device.threads,
    )  # fmt: skip
    main = stage.mod["main"]
    inputs = [_spec(var.name, var.ty) for var in list(main.params)[: num_inputs(stage.mod)]]
    outputs = [_spec(name, ty) for name, ty in zip(stage.gives, main.ret_ty.fields, strict=True)]
    signature = Signature(
        tuple(inputs),
        tuple(outputs),
        tuple((spec.name, at) for at, spec in enumerate(inputs)),
        {"tuple": list(range(len(outputs)))},
    )
    text = f"{imported.source.hash} {number} {stage.takes} {stage.computes} {stage.gives}"
    source = Source(hashlib.sha256(text.encode()).hexdigest(), imported.source.kind)
    part = Imported(stage.mod, signature, source)
    return build(tune(optimize(part, target, config=config)))


def _graph(imported: Imported, target: str, settings: CompileConfig) -> tvm.IRModule:
    """The graph before lowering, with its weights as they will be stored."""
    cpu = target_for(target, settings)
    with Gate(imported, cpu, settings) as gate:
        graph, _ = graph_passes(imported, cpu, settings, gate)
    return graph


def cleaned(imported: Imported, target: str = "cpu") -> tvm.IRModule:
    """The graph after its clean-up: what its operators are counted on."""
    default = CompileConfig()
    cpu = target_for(target, default)
    graph = imported.mod
    for phase in graph_phases(cpu, default):
        if phase.name == "clean":
            for step in phase.passes:
                graph, _ = run_pass(step, graph, phase.name, cpu)
    return graph


def _values(cut: Cut, signature: Signature) -> dict[str, TensorSpec]:
    """What goes between the stages."""
    found = {
        name: replace(spec, name=name)
        for name, spec in zip(cut.inputs, signature.inputs, strict=True)
    }
    for stage in cut.stages:
        fields = stage.mod["main"].ret_ty.fields
        found.update((n, _spec(n, ty)) for n, ty in zip(stage.gives, fields, strict=True))
    return found


def _spec(name: str, ty: tvm.ir.Type) -> TensorSpec:
    sizes: list[Any] = list(ty.shape) if ty.shape is not None else [None]
    if not all(isinstance(size, tirx.IntImm) for size in sizes):
        raise ConfigError(
            f"{name!r} goes from stage to stage, and its shape {list(map(str, sizes))} is not "
            "known: a pipeline's shapes must be, cut elsewhere or compile the model whole"
        )
    return TensorSpec(name, tuple(int(size) for size in sizes), str(ty.dtype))


def _check_static(signature: Signature) -> None:
    if not signature.static:
        open_sizes = sorted(signature.symbols) or [str(spec) for spec in signature.inputs]
        raise ConfigError(
            f"the model has the open sizes {open_sizes}, and a stage's memory is of fixed ones: "
            "import it with the shapes of a micro-batch"
        )


def _check_settings(settings: CompileConfig, target: str) -> None:
    if settings.resolved is not None:
        raise ConfigError("a resolved recipe is one model's: give a pipeline its recipe without")
    if settings.threads is not None:
        raise ConfigError("a stage has a thread for each core of its device: give no threads")
    if settings.devices:
        raise ConfigError(
            "the recipe's devices are those of one executable: leave them out there, and give the "
            "pipeline its own"
        )
    if target_for(target, settings).kind != "cpu":
        raise ConfigError(f"a pipeline's stages run on CPU cores; the target is {target!r}")


def _asked(micro_batches: int | str) -> int | None:
    if micro_batches == "auto":
        return None
    if isinstance(micro_batches, bool) or not isinstance(micro_batches, int) or micro_batches < 1:
        raise ConfigError(f"micro_batches must be 1 or more, or 'auto'; got {micro_batches!r}")
    return micro_batches


def _micro(signature: Signature, inputs: Any, rows: int, whole: Sequence[str]) -> Any:
    """The first ``rows`` rows of a batch, as the model takes it."""
    if inputs is None:
        raise ConfigError("give inputs: the batch that is to be split")
    named = dict(inputs) if isinstance(inputs, Mapping) else {}
    given = () if named else (inputs if isinstance(inputs, tuple | list) else (inputs,))
    leaves = [
        leaf if spec.name in whole else leaf[:rows]
        for spec, leaf in zip(signature.inputs, signature.flatten(given, named), strict=True)
    ]
    nodes = {n: trees.decode(node, leaves) for n, node in signature.arguments}
    if named:
        return {n: nodes[n] for n in named}
    return tuple(list(nodes.values())[: len(given)])


def _again(
    model: Any,
    part: Any,
    params: Params,
    settings: CompileConfig,
    rows: int,
    whole: Sequence[str],
) -> Imported | None:
    """The model at so many rows; None where it is of another number, and of that alone."""
    try:
        found = import_model(model, part, params=params, fold=settings.fold_onnx)
    except (ImportModelError, InvalidInputError):
        return None
    _check_static(found.signature)
    split_up = [spec for spec in found.signature.inputs if spec.name not in whole]
    return found if all(spec.shape[0] == rows for spec in split_up) else None


class _Shaped:
    def __init__(self, shape: Sequence[int | str]) -> None:
        self.shape = shape


__all__ = ["pipeline"]
