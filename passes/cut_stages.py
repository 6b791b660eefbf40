"""Cut a graph into consecutive stages, each a module of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import tvm
from tvm import relax

from burnish.passes.params import with_main
from burnish.passes.stage_graph import StageGraph
from burnish.passes.stage_module import Stage, StageBuilder


@dataclass(frozen=True)
class Cut:
    """Stages in order, and the names of the model's ``inputs`` and ``results`` among the values.

    A value is made once and read by any later stage: what only passes through a stage is none of
    its business.
    """

    stages: tuple[Stage, ...]
    inputs: tuple[str, ...]
    results: tuple[str, ...]


def binding_names(mod: tvm.IRModule) -> tuple[str, ...]:
    """The names by which :func:`cut_stages` knows the bindings of ``main``, in program order."""
    return StageGraph(mod).names


def in_order_of_stages(
    mod: tvm.IRModule, stages: Mapping[relax.Var, int]
) -> tuple[tvm.IRModule, tuple[int, ...]]:
    """``main`` with the bindings of stage 0 first, then those of 1, ..., and where they end.

    A binding that ``stages`` has not comes as early as what it reads allows. Raises
    ``ValueError`` where a binding reads one of a later stage.
    """
    main = mod["main"]
    everything = [b for block in main.body.blocks for b in block.bindings]
    found: dict[relax.Var, int] = {}
    last = max(stages.values(), default=0)
    for binding in everything:
        read = [found[v] for v in relax.analysis.free_vars(binding.value) if v in found]
        least = max(read, default=0)
        stage = stages.get(binding.var, least)
        if main.body.body.same_as(binding.var):
            stage = last
        if stage < least:
            raise ValueError(
                f"{binding.var.name!r} is of stage {stage} and reads a value of stage {least}"
            )
        found[binding.var] = stage
    ordered = sorted(everything, key=lambda b: found[b.var])
    dataflow = all(isinstance(block, relax.DataflowBlock) for block in main.body.blocks)
    block = (relax.DataflowBlock if dataflow else relax.BindingBlock)(ordered)
    body = relax.SeqExpr([block], main.body.body)
    func = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
    points = [sum(found[b.var] <= stage for b in ordered) for stage in range(last)]
    return with_main(mod, func), tuple(points)


def cut_stages(mod: tvm.IRModule, points: Sequence[int | str]) -> Cut:
    """``main`` cut after each of ``points``; the argument is untouched.

    A point is how many bindings come before the cut, or the name of the last of them.

    1. A binding runs in one stage, save those of rules 2 and 3.
    2. What depends on constants and weights alone (a mask, a transposed weight) is computed where
       it is read: moving it costs more.
    3. Sizes (shapes and scalars of the graph) are computed again: they are no tensors.
    4. A tuple crosses a cut as its fields.

    Raises ``ValueError`` for points that are no cut, for a value that cannot cross one, and for a
    stage that reads an open size which none of its inputs tells.
    """
    graph = StageGraph(mod)
    edges = [0, *_positions(graph.names, points), len(graph.names)]
    stages = []
    ranges = list(pairwise(edges))
    results = graph.results()
    for number, (start, end) in enumerate(ranges):
        stages.append(StageBuilder(graph, start, end).stage(number == len(ranges) - 1, results))
    return Cut(
        tuple(stages),
        tuple(var.name for var in graph.inputs),
        tuple(graph.result_name(value, at) for at, value in enumerate(results)),
    )


def _positions(names: Sequence[str], points: Sequence[int | str]) -> list[int]:
    found: list[int] = []
    for point in points:
        if isinstance(point, str):
            if point not in names:
                raise ValueError(
                    f"no binding {point!r:.80} to cut after; there are {len(names)}, "
                    f"from {names[0]!r} to {names[-1]!r}"
                )
            at = names.index(point) + 1
        else:
            at = int(point)
        if not (found[-1] if found else 0) < at < len(names):
            raise ValueError(
                f"cut points must rise from 1 to {len(names) - 1}, so that each stage has a "
                f"binding; got {list(points)}"
            )
        found.append(at)
    return found


__all__ = ["Cut", "Stage", "binding_names", "cut_stages", "in_order_of_stages"]
