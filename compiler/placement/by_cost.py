"""``placement="auto"``: the devices that measured costs choose, while a model is compiled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import tvm

from burnish.compiler.config import CompileConfig
from burnish.compiler.errors import TargetError
from burnish.compiler.gate import Variant, Variants
from burnish.compiler.measure.timing import faster
from burnish.compiler.optimizer import lowered
from burnish.compiler.pipeline import graph_phases
from burnish.compiler.placement.choose import Choice, choose
from burnish.compiler.placement.costs import CostModel
from burnish.compiler.placement.links import measured_links
from burnish.compiler.placement.model_problem import (
    NO_COST,
    Links,
    ModelProblem,
    Progress,
    model_problem,
)
from burnish.compiler.placement.predict import Placement
from burnish.compiler.progress import shown
from burnish.compiler.stages import Imported
from burnish.compiler.waterfall import Row
from burnish.passes.place import AUTO
from burnish.targets.choose import Target
from burnish.targets.hetero import HeteroTarget

CLOSE = 1.5
"""A single device that is predicted to take less than so many times the best is timed with it."""


@contextmanager
def _told(progress: Progress | None) -> Iterator[Progress]:
    """The caller's own progress, else a bar on stderr with the time left."""
    if progress is not None:
        yield progress
        return
    with shown("timing operators") as bar:
        start = time.monotonic()

        def report(done: int, total: int, doing: str) -> None:
            spent = time.monotonic() - start
            bar(done, total, spent / done * (total - done) if done else 0.0, doing)

        yield report


def by_cost(target: Target, config: CompileConfig, imported: Imported) -> ByCost | None:
    """What decides where operators go, if the configuration leaves any to costs."""
    if AUTO not in config.placement.values() or not isinstance(target, HeteroTarget):
        return None
    why = target.why_not_here()
    if why:
        raise TargetError(
            f"placement by cost times operators on the devices of {target.name!r}, and {why}: "
            'compile on a machine that has them, or give the placement by names instead of "auto"',
            stage="place",
        )
    return ByCost(target, config, imported)


def _to_hold_against(choice: Choice) -> list[Placement]:
    """Single devices to be timed with the best predicted, the one that should be fastest first.

    With a cut the best of them, whatever was predicted; and each that comes close.
    """
    best = choice.best
    alone: dict[str, Placement] = {}
    for row in choice.rows:
        if row.placement is not None and len(set(row.placement.assignment.values())) == 1:
            alone.setdefault(_name(row.placement), row.placement)
    alone.pop(_name(best), None)
    rivals = sorted(alone.values(), key=lambda one: one.seconds)
    cut = len(set(best.assignment.values())) > 1
    return [
        rival
        for at, rival in enumerate(rivals)
        if rival.seconds < CLOSE * best.seconds or (cut and at == 0)
    ]


def _name(placement: Placement) -> str:
    """A device, or that it is a cut, as the report says it."""
    devices = set(placement.assignment.values())
    return f"all on {devices.pop()}" if len(devices) == 1 else "cut"


class ByCost:
    """Looks at a graph before it is cut, and decides.

    Called with the graph, it gives the configuration with a device for each operator. ``choice``
    and ``problem`` then say how it came to that. With ``do_no_harm`` the best predicted is held
    against the best single device, where it is a cut, and each that is predicted to come close:
    they are built and timed in turns, and one that is faster is taken. ``measured`` has those
    milliseconds.
    """

    def __init__(
        self,
        target: HeteroTarget,
        config: CompileConfig,
        imported: Imported,
        *,
        costs: CostModel | None = None,
        links: Links = measured_links,
        progress: Progress | None = None,
    ) -> None:
        self.target, self.config, self.imported = target, config, imported
        self.best: Placement | None = None
        self.measured: dict[str, float] = {}
        self.choice: Choice | None = None
        self.problem: ModelProblem | None = None
        self._costs, self._links, self._progress = costs or CostModel(), links, progress

    def __call__(self, graph: tvm.IRModule) -> CompileConfig:
        bare = replace(self.config, placement={}, resolved=None)
        with _told(self._progress) as progress:
            self.problem = model_problem(
                graph,
                self.target,
                replace(bare, placement=self.config.placement),
                self._costs,
                links=self._links,
                progress=progress,
            )
        self.choice = choose(self.problem.problem, overlap=self.target.concurrent)
        self.best = self._verified(graph, self.choice)
        self.config = self._with(self.best)
        return self.config

    def _with(self, placement: Placement) -> CompileConfig:
        if self.problem is None:
            raise RuntimeError("nothing was placed yet")
        return replace(self.config, placement=self.problem.bindings(placement.assignment))

    def _verified(self, graph: tvm.IRModule, choice: Choice) -> Placement:
        """The best predicted, or a single device that is measured to be faster."""
        best, inputs = choice.best, self.imported.source.example_inputs
        others = _to_hold_against(choice)
        if not (others and inputs and self.config.do_no_harm) or self.target.why_not_here():
            return best
        with Variants(
            self.imported.signature, self.imported.source, self.target, self.config
        ) as variants:

            def built(placement: Placement) -> Variant:
                phases = graph_phases(self.target, self._with(placement))
                return variants.build(lowered(graph, self.target, phases))

            kept = built(best)
            for other in others:
                rival = built(other)
                timings = variants.time(rival, kept)
                self.measured[_name(other)] = timings["before"].p50
                self.measured[_name(best)] = timings["after"].p50
                if faster(timings["before"], timings["after"]):
                    kept, best = rival, other
        return best

    def _without_cost(self) -> list[str]:
        """Devices that could run something, of which no cost is known."""
        if self.problem is None:
            return []
        nodes = self.problem.problem.nodes
        names = [place.name for place in self.target.places]
        return [name for name in names if any(n.reasons.get(name) == NO_COST for n in nodes)]

    def told(self, rows: Sequence[Row]) -> list[Row]:
        """The report's rows, that of the cut with what was predicted for each candidate."""
        if self.choice is None:
            return list(rows)
        best = self.best or self.choice.best
        said: dict[str, Any] = {
            "algorithm": best.algorithm,
            "predicted_ms": 1e3 * best.seconds,
            "measured_ms": dict(self.measured),
            "memory_bytes": dict(best.prediction.memory),
            "no_cost": self._without_cost(),
            "candidates": [
                {
                    "algorithm": row.algorithm,
                    "predicted_ms": None if row.placement is None else 1e3 * row.placement.seconds,
                    "why_not": row.fault,
                }
                for row in self.choice.rows
            ],
        }
        return [
            replace(row, details={**(row.details or {}), "placement": said})
            if row.name == "PartitionGraph"
            else row
            for row in rows
        ]
