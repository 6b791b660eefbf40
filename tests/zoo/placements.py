"""Random placements of zoo models, and how far they are from the model in its own runtime.

``PYTHONPATH=tests python tests/zoo/placements.py [--seeds N] [MODEL ...]`` runs all of them, a line
each; ``benchmarks/results/random_placements.txt`` has such a run.
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

import burnish
from burnish import models
from burnish.compiler import pipeline
from burnish.compiler.config import CompileConfig
from burnish.compiler.parity import parity
from burnish.compiler.placed import supports
from burnish.passes.place import nodes
from burnish.targets.choose import choose_target

TWO, THREE = "hetero:opencl:0,cpu", "hetero:cpu,opencl:0,cpu:1"
DRAWS = 10
"""How often in a model, on average, a device is drawn; between, operators stay where they are."""


def drawn_placement(imported: Any, devices: str, seed: int) -> dict[str, str]:
    """A device for each operator of an imported model, among those that can compute it."""
    target, config, mod = choose_target(devices), CompileConfig(), imported.mod
    with target.tvm():
        for phase in pipeline.graph_phases(target, config):
            if phase.name == "partition":
                break
            for step in phase.passes:
                mod = step(mod)
    able, rng, found = supports(target), random.Random(seed), {}
    now = rng.choice(target.devices)
    every = nodes(mod)
    for node in every:
        now = rng.choice(target.devices) if rng.random() < DRAWS / len(every) else now
        if able[now].why_not(node.value):
            able_now = [name for name, one in able.items() if not one.why_not(node.value)]
            found[node.name] = rng.choice(able_now)
        else:
            found[node.name] = now
    return found


def error_of(
    name: str, inputs: Any, reference: Any, devices: str, seed: int
) -> tuple[float, dict[str, Any]]:
    """Relative error of a model placed at random, and what its cut is made of."""
    zoo = models.load(name)
    placement = drawn_placement(burnish.import_model(zoo.model, inputs), devices, seed)
    compiled = burnish.compile(zoo.model, inputs, target=devices, placement=placement, cache=False)
    row = next(row for row in compiled.report.rows if row.name == "PartitionGraph")
    return parity(compiled(*inputs), reference).rel, dict(row.details)


def main() -> None:
    from test_zoo_opencl import reference, shortened

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=models.names())
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    for name in given.models:
        zoo = models.load(name)
        inputs = shortened(zoo)
        expected = reference(zoo, inputs)
        for devices in (TWO, THREE):
            for seed in range(given.seeds):
                start = time.process_time()
                error, cut = error_of(name, inputs, expected, devices, seed)
                print(
                    f"{name:20} {devices:26} seed {seed}: error {error:.1e}, "
                    f"{len(cut['regions'])} regions, {len(cut['transfers'])} transfers, "
                    f"{time.process_time() - start:.0f} CPU-s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
