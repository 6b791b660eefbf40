"""Predicted and measured latency of the zoo, on one device and cut over two.

    python benchmarks/prediction.py [MODEL ...] [--cut hetero:cpu,opencl:0] [--short]
        [--json FILE] [--table FILE]

A prediction is the sum of the times of a model's operators, each timed alone with its weights
out of the caches, and of its transfers; the model itself is not run for it. Then the model is
timed, in a process of its own. With ``--cut`` it is also cut in two places drawn from the seed,
so that half of it runs on the other device, and predicted and timed so. Operators' times are kept
in ``$BURNISH_CACHE``. ``--short`` takes short inputs, as the tests of OpenCL do.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import burnish
from burnish import models
from burnish.compiler import driver
from burnish.compiler.measure import ArtifactRunner, MeasureService, describe_machine
from burnish.compiler.placement.costs import CostModel
from burnish.compiler.placement.groups import groups_of
from burnish.compiler.placement.latency import predict_latency
from burnish.passes.place import nodes

LENGTH = 32
ROUNDS = 7


def main() -> None:
    """Predict, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=models.names())
    parser.add_argument("--cut", help="a target of two devices, to cut each model over")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="short sequences")
    parser.add_argument("--json", type=Path, help="add the rows to this file")
    parser.add_argument("--table", type=Path, help="write the table there, as Markdown")
    options = parser.parse_args()
    rows = []
    for name in options.models:
        rows.append(row := taken(name, options.cut, options.seed, options.short))
        print(json.dumps(row), flush=True)
    told(rows, options, table)


def told(
    rows: list[dict[str, Any]],
    options: argparse.Namespace,
    table: Callable[[list[dict[str, Any]]], str],
) -> None:
    """Print the table; add the rows to ``options.json``, write it to ``options.table``."""
    if options.json:
        kept = json.loads(options.json.read_text())["rows"] if options.json.exists() else []
        new = {(row["model"], row["target"]) for row in rows}
        rows = [row for row in kept if (row["model"], row["target"]) not in new] + rows
        document = {"schema": 1, "machine": describe_machine(), "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    text = table(rows)
    print(text)
    if options.table:
        options.table.write_text(text)


def taken(name: str, cut: str | None, seed: int, short: bool) -> dict[str, Any]:
    """One model: what was predicted, what was measured."""
    zoo = models.load(name)
    inputs = shortened(zoo.example_inputs) if short else zoo.example_inputs
    imported = driver.import_model(zoo.model, inputs)
    config = burnish.CompileConfig()
    optimized = driver.optimize(imported, "cpu", config=config)
    moved = 0.0
    if cut is not None:
        config = burnish.CompileConfig(placement=_halves(optimized.graph, cut, seed))
        optimized = driver.optimize(imported, cut, config=config)
    start = time.perf_counter()
    found = predict_latency(optimized, CostModel())
    spent = time.perf_counter() - start
    moved = found.transfers
    with tempfile.TemporaryDirectory() as folder, MeasureService() as service:
        runner = ArtifactRunner(driver.build(optimized).save(Path(folder) / "model.burnish"))
        timing = service.take_turns({name: runner}, inputs, rounds=ROUNDS, budget_s=6.0)[name]
    return {
        "model": name,
        "target": cut or "cpu",
        "predicted_ms": 1e3 * found.seconds,
        "error_ms": 1e3 * found.error,
        "transfers_ms": 1e3 * moved,
        "measured_ms": timing.p50,
        "ratio": 1e3 * found.seconds / timing.p50,
        "noisy": timing.noisy,
        "timing_operators_s": round(spent, 1),
    }


def _halves(graph: Any, cut: str, seed: int) -> dict[str, str]:
    """Between two places drawn among the groups, the second device; else the first."""
    first, second = cut.removeprefix("hetero:").split(",")
    groups = groups_of(graph)
    drawn = random.Random(seed)
    length = max(1, len(groups) // 2)
    start = drawn.randrange(len(groups) - length + 1)
    there = {str(b.var.name) for g in groups[start : start + length] for b in g.bindings}
    return {n.name: second if n.name in there else first for n in nodes(graph)}


def shortened(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sequences of at most :data:`LENGTH`."""
    return tuple(
        x[:, :LENGTH].contiguous()
        if isinstance(x, torch.Tensor) and x.ndim == 2 and x.shape[1] > LENGTH
        else x
        for x in inputs
    )


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown, the medians of the errors last."""
    lines = [
        "| model | devices | predicted ms | measured ms | predicted / measured |",
        "|---|---|---:|---:|---:|",
    ]
    off: dict[str, list[float]] = {}
    for row in rows:
        noisy = " (noisy)" if row["noisy"] else ""
        lines.append(
            f"| {row['model']} | {row['target']} | {row['predicted_ms']:.3f} ± "
            f"{row['error_ms']:.3f} | {row['measured_ms']:.3f}{noisy} | {row['ratio']:.2f} |"
        )
        off.setdefault(row["target"], []).append(abs(row["ratio"] - 1))
    told = "; ".join(
        f"{target}: median {statistics.median(errors):.1%}, largest {max(errors):.1%} of "
        f"{len(errors)}"
        for target, errors in off.items()
    )
    return "\n".join(lines) + f"\n\nError of the prediction: {told}.\n"


if __name__ == "__main__":
    main()
