"""Running the pipeline's passes, one row of the report each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import tvm
import tvm_ffi

from burnish.compiler import pipeline
from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import PassError, wrap_errors
from burnish.compiler.gate import Gate
from burnish.compiler.stages import Imported
from burnish.compiler.summary import op_counts
from burnish.compiler.waterfall import Reading, Row
from burnish.passes.params import get_params, param_bytes
from burnish.passes.partition_summary import partition_summary
from burnish.passes.prune import prune_report
from burnish.targets.choose import Target

LOWERING = ("lower", "fuse")
Decide = Callable[[tvm.IRModule], CompileConfig]


def run_passes(
    imported: Imported,
    target: Target,
    config: CompileConfig,
    gate: Gate,
    decide: Decide | None = None,
) -> tuple[tvm.IRModule, tvm.IRModule, list[Row]]:
    """The graph before lowering, the fused kernels, and the rows of the report.

    Passes of the weight phases and the user's own are judged by ``gate``, which may undo them.
    ``decide`` looks at the graph before it is cut, and gives a configuration that says how.
    """
    graph, rows = graph_passes(imported, target, config, gate, decide)
    mod = graph
    for phase in pipeline.graph_phases(target, config):
        if phase.name in LOWERING:
            mod, row = _run_phase(phase, mod, target)
            rows.append(row)
    return graph, mod, rows


def graph_passes(
    imported: Imported,
    target: Target,
    config: CompileConfig,
    gate: Gate,
    decide: Decide | None = None,
) -> tuple[tvm.IRModule, list[Row]]:
    """The graph before lowering, and the rows of its passes; as :func:`run_passes`."""
    graph = imported.mod
    rows: list[Row] = []
    phases = pipeline.graph_phases(target, config)
    gate.lower = lambda mod: lowered(mod, target, phases)
    gate.start(graph)
    for phase in phases:
        if phase.name in LOWERING:
            continue
        if phase.name == "partition" and decide is not None:
            phases = pipeline.graph_phases(target, decide(graph))
            phase = next(one for one in phases if one.name == "partition")
        own = config.extra_passes(phase.name)
        standard = phase.passes[: len(phase.passes) - len(own)]
        before = graph
        for step in standard:
            graph, row = run_pass(step, graph, phase.name, target)
            rows.append(row)
        if standard and phase.name in ("clean", "prune", "quantize", "precision"):
            place = _last_change(rows, len(standard))
            graph, rows[place] = gate.judge(before, graph, rows[place], phase.name, place)
        for step in own:
            before = graph
            graph, row = run_pass(step, graph, phase.name, target)
            graph, row = gate.judge(before, graph, row, "user", len(rows))
            rows.append(row)
    return graph, rows


def _last_change(rows: list[Row], count: int) -> int:
    """The row among the last ``count`` to speak for its phase: the last that changed anything."""
    places = range(len(rows) - count, len(rows))
    return max((p for p in places if rows[p].status != "no change"), default=len(rows) - 1)


def lowered(mod: tvm.IRModule, target: Target, phases: tuple[pipeline.Phase, ...]) -> tvm.IRModule:
    """A graph's fused kernels, by the lowering phases alone."""
    for phase in phases:
        if phase.name in LOWERING:
            mod, _row = _run_phase(phase, mod, target)
    return mod


def reading(mod: tvm.IRModule) -> Reading:
    return Reading(ops=op_counts(mod), bytes=param_bytes(mod))


def run_pass(
    step: pipeline.Pass, mod: tvm.IRModule, phase: str, target: Target
) -> tuple[tvm.IRModule, Row]:
    """One pass and its row; an error of the pass names it."""
    name = str(step.info.name)
    start = time.perf_counter()
    with wrap_errors(PassError, pass_name=name), target.tvm():
        new = step(mod)
    seconds = time.perf_counter() - start
    before, after = reading(mod), reading(new)
    same = before == after and (new.same_as(mod) or _equal(new, mod))
    row = Row(name, phase, seconds, before, after, "no change" if same else "applied")
    if name == "PruneWeights":
        row = replace(row, status="size only", details=prune_report(mod, new).to_dict())
    if name == "PartitionGraph":
        row = replace(row, details=partition_summary(new))
    return new, row


def _equal(new: tvm.IRModule, old: tvm.IRModule) -> bool:
    """The same graph over the very same weights."""
    ours, theirs = get_params(new), get_params(old)
    return (
        ours.keys() == theirs.keys()
        and all(value.same_as(theirs[name]) for name, value in ours.items())
        and tvm_ffi.structural_equal(new["main"], old["main"])
    )


def _run_phase(
    phase: pipeline.Phase, mod: tvm.IRModule, target: Target
) -> tuple[tvm.IRModule, Row]:
    """All passes of a phase as one row."""
    start = time.perf_counter()
    before = reading(mod)
    for step in phase.passes:
        with wrap_errors(PassError, pass_name=str(step.info.name)), target.tvm():
            mod = step(mod)
    seconds = time.perf_counter() - start
    return mod, Row(phase.name.capitalize(), phase.name, seconds, before, reading(mod))
