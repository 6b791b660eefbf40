"""Over the zoo: the placement that costs choose, beside each device alone, timed in turns.

    python benchmarks/chosen.py [MODEL ...] [--target hetero:cpu,opencl:0] [--short]
        [--json FILE] [--table FILE]

Each model is compiled with ``placement="auto"`` for the devices of the target, and for each of them
alone, as one would without placement: ``cpu``, ``opencl``, or a thread for each core where
the devices are cores. All are then timed in one run, each in a process of its own, taking turns.
``--short`` takes short sequences, as the tests of OpenCL do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import burnish
from burnish import models
from burnish.compiler import driver
from burnish.compiler.measure import ArtifactRunner, MeasureService
from burnish.targets.choose import choose_target
from burnish.targets.hetero import HeteroTarget, Place

sys.path.insert(0, str(Path(__file__).parent))

from prediction import ROUNDS, shortened, told

CHOSEN = "chosen"
BUDGET_S = 12.0
NOISE = 0.03
"""Nothing is called slower for less: two builds of one model differ by as much."""


def main() -> None:
    """Compile, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=models.names())
    parser.add_argument("--target", default="hetero:cpu,opencl:0", help="devices to choose from")
    parser.add_argument("--short", action="store_true", help="short sequences")
    parser.add_argument("--json", type=Path, help="add the rows to this file")
    parser.add_argument("--table", type=Path, help="write the table there, as Markdown")
    options = parser.parse_args()
    rows = []
    for name in options.models:
        rows.append(row := taken(name, options.target, options.short))
        print(json.dumps(row), flush=True)
    told(rows, options, table)


def taken(name: str, target: str, short: bool) -> dict[str, Any]:
    """One model: what was chosen, and the times of that and of each device alone."""
    zoo = models.load(name)
    inputs = shortened(zoo.example_inputs) if short else zoo.example_inputs
    imported = driver.import_model(zoo.model, inputs)
    found = choose_target(target)
    assert isinstance(found, HeteroTarget)
    with tempfile.TemporaryDirectory() as folder, MeasureService(found.threads) as service:
        config = burnish.CompileConfig(placement={"*": "auto"})
        optimized = driver.optimize(imported, target, config=config)
        chosen = driver.build(optimized)
        said = next(row for row in chosen.report.rows if row.name == "PartitionGraph").details
        runners = {CHOSEN: ArtifactRunner(chosen.save(Path(folder) / "chosen.burnish"))}
        reasons: dict[str, str] = {}
        for place in found.places:
            try:
                alone = _alone(imported, place)
            except burnish.BurnishError as error:
                reasons[place.name] = str(error)
                continue
            runners[place.name] = ArtifactRunner(alone.save(Path(folder) / f"{place.name}.burnish"))
        timings = service.take_turns(runners, inputs, rounds=ROUNDS, budget_s=BUDGET_S)
    single = {where: timing.p50 for where, timing in timings.items() if where != CHOSEN}
    best = min(single, key=lambda where: single[where])
    return {
        "model": name,
        "target": target,
        "operators": _share(said["regions"]),
        "algorithm": said["placement"]["algorithm"],
        "predicted_ms": said["placement"]["predicted_ms"],
        "held_ms": said["placement"]["measured_ms"],
        "chosen_ms": timings[CHOSEN].p50,
        "single_ms": single,
        "single_reasons": reasons,
        "best_single": best,
        "times": single[best] / timings[CHOSEN].p50,
        "spread": max(timings[CHOSEN].spread, timings[best].spread),
    }


def _alone(imported: Any, place: Place) -> burnish.Compiled:
    threads = len(place.cores) or None
    config = burnish.CompileConfig(threads=threads)
    target = "cpu" if place.cores else place.target.name
    return driver.build(driver.optimize(imported, target, config=config))


def _share(regions: list[dict[str, Any]]) -> dict[str, int]:
    """How many operators are on each device."""
    found: Counter[str] = Counter()
    for region in regions:
        found[region["device"]] += sum(region["operators"].values())
    return dict(found)


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown, what is slower than a device alone counted last."""
    lines = [
        "| model | devices | operators on each | predicted ms | chosen ms | best alone | times |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        on = ", ".join(f"{count} {name}" for name, count in row["operators"].items())
        alone = f"{row['single_ms'][row['best_single']]:.3f} ({row['best_single']})"
        lines.append(
            f"| {row['model']} | {row['target']} | {on} | {row['predicted_ms']:.3f} | "
            f"{row['chosen_ms']:.3f} | {alone} | {row['times']:.2f} |"
        )
    slower = [
        f"{row['model']} on {row['target']}"
        for row in rows
        if 1 / row["times"] > 1 + max(NOISE, row["spread"])
    ]
    told = f"Slower than the best device alone, beyond noise: {', '.join(slower) or 'none'}"
    return "\n".join(lines) + f"\n\n{told} (of {len(rows)}).\n"


if __name__ == "__main__":
    main()
