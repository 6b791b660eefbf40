"""``placement="auto"``: the devices that measured costs choose, while a model is compiled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import tvm

from burnish.compiler.config import CompileConfig
from burnish.compiler.placement.choose import Choice, choose
from burnish.compiler.placement.costs import CostModel
from burnish.compiler.placement.links import measured_links
from burnish.compiler.placement.model_problem import Links, ModelProblem, Progress, model_problem
from burnish.compiler.progress import shown
from burnish.compiler.waterfall import Row
from burnish.passes.place import AUTO, pinned
from burnish.targets.choose import Target
from burnish.targets.hetero import HeteroTarget


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


def by_cost(target: Target, config: CompileConfig) -> ByCost | None:
    """What decides where operators go, if the configuration leaves any to costs."""
    if AUTO not in config.placement.values() or not isinstance(target, HeteroTarget):
        return None
    return ByCost(target, config)


class ByCost:
    """Looks at a graph before it is cut, and decides.

    Called with the graph, it gives the configuration with a device for each operator. ``choice``
    and ``problem`` then say how it came to that.
    """

    def __init__(
        self,
        target: HeteroTarget,
        config: CompileConfig,
        *,
        costs: CostModel | None = None,
        links: Links = measured_links,
        progress: Progress | None = None,
    ) -> None:
        self.target, self.config = target, config
        self.choice: Choice | None = None
        self.problem: ModelProblem | None = None
        self._costs, self._links, self._progress = costs or CostModel(), links, progress

    def __call__(self, graph: tvm.IRModule) -> CompileConfig:
        bare = replace(self.config, placement={}, resolved=None)
        with _told(self._progress) as progress:
            self.problem = model_problem(
                graph,
                self.target,
                replace(bare, placement=pinned(self.config.placement)),
                self._costs,
                links=self._links,
                progress=progress,
            )
        self.choice = choose(self.problem.problem, overlap=self.target.concurrent)
        found = self.problem.bindings(self.choice.best.assignment)
        self.config = replace(self.config, placement=found)
        return self.config

    def told(self, rows: Sequence[Row]) -> list[Row]:
        """The report's rows, that of the cut with what was predicted for each candidate."""
        if self.choice is None:
            return list(rows)
        best = self.choice.best
        said = {
            "algorithm": best.algorithm,
            "predicted_ms": 1e3 * best.seconds,
            "memory_bytes": dict(best.prediction.memory),
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
