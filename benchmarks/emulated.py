"""Is the chosen placement the measured best? Twenty problems with emulated devices and links.

    python benchmarks/emulated.py --prepare FOLDER [--problems 0-4]
    python benchmarks/emulated.py FOLDER [--problems 0-4] [--json FILE] [--table FILE]

Each problem (``emulated_problems.py``) is a network and two or three devices whose speeds differ
by kind of operator, with links between them, some with memory limits, or with an operator that a
device cannot run. The emulated times of operators and links go to the product's own chooser. Then
the chosen placement, those of every algorithm, each single device, the best of the chosen one's
neighbours, and placements drawn at random are cut and compiled, and run with delays injected
(``emulation.py``), in turns. The chosen placement is called the measured best where no candidate's
median is more than ``EQUAL`` below its own.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from emulated_problems import COUNT, Case, drawn
from emulation import (
    AtOnce,
    EmulatedCosts,
    InTurns,
    exact_sleep,
    kernel_seconds,
    named_devices,
    region_devices,
)

import burnish
from burnish.compiler import build, driver
from burnish.compiler.config import CompileConfig
from burnish.compiler.measure import describe_machine
from burnish.compiler.optimizer import run_pass
from burnish.compiler.pipeline import graph_phases
from burnish.compiler.placement.choose import Choice, choose
from burnish.compiler.placement.model_problem import ModelProblem, model_problem
from burnish.compiler.placement.predict import predict
from burnish.compiler.placement.problem import Device, Problem
from burnish.compiler.placement.problem_file import read_problem, write_problem
from burnish.compiler.placement.tables import Tables
from burnish.compiler.stages import Imported

CANDIDATES, NEIGHBOURS, ROUNDS = 16, 6, 9
EQUAL = 0.01
"""Medians nearer than that are of placements that are equally good."""


def problem_of(case: Case, imported: Imported) -> ModelProblem:
    """The placement problem of a case, by emulated costs and links."""
    emulated = case.emulated
    target, config = named_devices(emulated.target), CompileConfig()
    graph = imported.mod
    for phase in graph_phases(target, config):
        if phase.name == "partition":
            break
        for step in phase.passes:
            graph = run_pass(step, graph, phase.name, target)[0]
    costs = EmulatedCosts(emulated.speeds)
    model = model_problem(graph, target, config, costs, links=lambda _: emulated.links)
    whole = model.problem
    nodes = []
    for node in whole.nodes:
        cannot = {
            device: f"it has no {operator}"
            for device, operator in emulated.refused.items()
            if any(operator in one for one in node.operator.split(", "))
        }
        seconds = {name: took for name, took in node.seconds.items() if name not in cannot}
        nodes.append(replace(node, seconds=seconds, reasons={**node.reasons, **cannot}))
    everywhere = dict.fromkeys((node.name for node in nodes), whole.host)
    size = predict(whole, everywhere).memory[whole.host]
    limits = {name: int(share * size) for name, share in emulated.memory.items()}
    devices = tuple(Device(one.name, limits.get(one.name)) for one in whole.devices)
    return replace(model, problem=replace(whole, nodes=tuple(nodes), devices=devices))


def candidates(problem: Problem, choice: Choice, *, overlap: bool, seed: int) -> dict[str, Any]:
    """Placements by what they are, the chosen one first; one that is two things has both names."""
    tables, draw = Tables.of(problem), random.Random(f"candidates {seed}")
    found: dict[tuple[int, ...], list[str]] = {}

    def add(name: str, row: Any) -> None:
        found.setdefault(tuple(map(int, row)), []).append(name)

    best = tables.row(choice.best.assignment)
    add("chosen", best)
    for one in choice.rows:
        if one.placement is not None:
            add(one.algorithm, tables.row(one.placement.assignment))
    moved = [
        (*best[:unit], device, *best[unit + 1 :])
        for unit, allowed in enumerate(tables.allowed)
        for device in allowed
        if device != best[unit]
    ]
    seconds, excess = tables.evaluate(np.array(moved), overlap=overlap)
    every = zip(seconds, moved, excess, strict=True)
    fit = sorted((took, row) for took, row, over in every if over <= 0)
    for _, row in fit[:NEIGHBOURS]:
        add("neighbour", row)
    for _ in range(100 * CANDIDATES):
        if len(found) >= CANDIDATES:
            break
        row = tuple(draw.choice(allowed) for allowed in tables.allowed)
        over = tables.evaluate(np.array([row]), overlap=overlap)[1][0]
        if over <= 0 and row not in found:
            add("random", row)
    return {
        " = ".join(dict.fromkeys(names)) + f" ({at})": tables.assignment(np.array(row))
        for at, (row, names) in enumerate(found.items())
    }


def built(
    case: Case, imported: Imported, model: ModelProblem, assignment: Mapping[str, str]
) -> tuple[burnish.Compiled, dict[str, Any]]:
    """A placement compiled, and what its run is to take."""
    target = named_devices(case.emulated.target)
    config = CompileConfig(placement=model.bindings(assignment))
    optimized = driver.optimize(imported, target, config=config)
    expected = predict(model.problem, assignment, overlap=target.concurrent)
    # Delays are put into regions that are started, also where one device has all of them.
    with patch.object(build, "_one_set", lambda *_: ""):
        compiled = driver.build(optimized)
    return compiled, {
        "placement": dict(assignment),
        "predicted_s": expected.seconds,
        "kernels": kernel_seconds(optimized.mod, case.emulated.speeds),
        "regions": region_devices(optimized.mod),
    }


def prepare(folder: Path, number: int) -> None:
    """Choose, compile every candidate, and save all of it."""
    case = drawn(number)
    imported = driver.import_model(case.net, case.inputs)
    model = problem_of(case, imported)
    overlap = named_devices(case.emulated.target).concurrent
    choice = choose(model.problem, overlap=overlap)
    folder.mkdir(parents=True, exist_ok=True)
    write_problem(model.problem, folder / "problem.json")
    rows = []
    every = candidates(model.problem, choice, overlap=overlap, seed=number)
    for at, (name, assignment) in enumerate(every.items()):
        compiled, row = built(case, imported, model, assignment)
        compiled.save(folder / f"{at}.burnish")
        rows.append({"name": name, **row})
    said = {"algorithm": choice.best.algorithm, "candidates": rows}
    (folder / "candidates.json").write_text(json.dumps(said, indent=1))
    expected = [1e3 * row["predicted_s"] for row in rows]
    print(
        f"{number:2} {case.topology:11} {len(model.problem.nodes):2} nodes, "
        f"{case.emulated.target}: {rows[0]['name']}, {expected[0]:.2f} ms expected; "
        f"{len(rows)} candidates, next {', '.join(f'{ms:.2f}' for ms in sorted(expected)[1:4])}",
        flush=True,
    )


def opened(
    compiled: burnish.Compiled, row: Mapping[str, Any], problem: Problem, *, clock: bool = True
) -> InTurns | AtOnce:
    """A candidate as it runs on the emulated devices."""
    if not compiled.target.concurrent:
        return InTurns(compiled, row["kernels"], problem.move_seconds, clock=clock)
    more = row["regions"], problem.host
    return AtOnce(compiled, row["kernels"], problem.move_seconds, *more, clock=clock)


def measured(folder: Path, number: int) -> dict[str, Any]:
    """Run every candidate of a problem in turns; medians of the rounds."""
    case = drawn(number)
    problem = read_problem(folder / "problem.json")
    said = json.loads((folder / "candidates.json").read_text())
    rows = said["candidates"]
    inputs = [one.numpy() for one in case.inputs]
    with torch.no_grad():
        expected = case.net(*case.inputs).numpy()
    runs = [
        opened(burnish.load(folder / f"{at}.burnish"), row, problem) for at, row in enumerate(rows)
    ]
    taken: list[list[float]] = [[] for _ in runs]
    virtual, worst = [0.0 for _ in runs], 0.0
    order, draw = list(range(len(runs))), random.Random(number)
    for turn in range(ROUNDS + 1):
        draw.shuffle(order)
        for at in order:
            out, seconds, virtual[at] = runs[at](*inputs)
            if turn:
                taken[at].append(seconds)
                continue
            first = out if hasattr(out, "numpy") else out[0]
            worst = max(worst, float(np.abs(first.numpy() - expected).max()))
    medians = [statistics.median(one) for one in taken]
    least = min(medians)
    return {
        "problem": number,
        "topology": case.topology,
        "nodes": len(problem.nodes),
        "target": case.emulated.target,
        "at_once": named_devices(case.emulated.target).concurrent,
        "memory": dict(case.emulated.memory),
        "refused": dict(case.emulated.refused),
        "algorithm": said["algorithm"],
        "devices_used": len(set(rows[0]["placement"].values())),
        "slower_than_least": medians[0] / least - 1,
        "best": medians[0] <= least * (1 + EQUAL),
        "strictly_best": medians[0] == least,
        "largest_error": worst,
        "late_ms": 1e3 * max(one.late for one in runs),
        "candidates": [
            {
                "name": row["name"],
                "predicted_ms": 1e3 * row["predicted_s"],
                "injected_ms": 1e3 * virtual[at],
                "measured_ms": 1e3 * medians[at],
                "quartiles_ms": [1e3 * float(q) for q in np.quantile(taken[at], (0.25, 0.75))],
            }
            for at, row in enumerate(rows)
        ],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown, the counts last."""
    lines = [
        "| | network | devices | chosen by | expected ms | measured ms | next best measured ms "
        "| best single device ms | measured best |",
        "|---|---|---|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        chosen, *others = row["candidates"]
        alone = [one["measured_ms"] for one in row["candidates"] if "all on" in one["name"]]
        more = "".join(f"; no {name} on {device}" for device, name in row["refused"].items())
        more += "; memory" if row["memory"] else ""
        lines.append(
            f"| {row['problem']} | {row['topology']}, {row['nodes']} groups | "
            f"{row['target'].removeprefix('hetero:')}{more} | {row['algorithm']} "
            f"| {chosen['predicted_ms']:.2f} | {chosen['measured_ms']:.2f} "
            f"| {min(one['measured_ms'] for one in others):.2f} "
            f"| {f'{min(alone):.2f}' if alone else 'none can'} "
            f"| {'yes' if row['best'] else f'''no, by {row['slower_than_least']:.1%}'''} |"
        )
    every = [one for row in rows for one in row["candidates"]]
    off = [abs(one["predicted_ms"] / one["measured_ms"] - 1) for one in every]
    return "\n".join(lines) + (
        f"\n\nThe chosen placement is the measured best in {sum(r['best'] for r in rows)} of "
        f"{len(rows)} problems (no candidate's median more than {EQUAL:.0%} below), and has the "
        f"least median of all in {sum(r['strictly_best'] for r in rows)}. {len(every)} candidates; "
        f"what is expected of them is off by {statistics.median(off):.1%} in the median, "
        f"{max(off):.1%} at the most.\n"
    )


def main() -> None:
    """Prepare, or run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prepare", action="store_true", help="choose, compile and save")
    parser.add_argument("--problems", default=f"0-{COUNT - 1}", help="the first and the last one")
    parser.add_argument("--json", type=Path, help="put the rows into this file")
    parser.add_argument("--table", type=Path, help="write the table of all rows there")
    options = parser.parse_args()
    first, _, last = options.problems.partition("-")
    numbers = range(int(first), int(last or first) + 1)
    if options.prepare:
        for number in numbers:
            prepare(options.folder / f"problem{number}", number)
        return
    exact_sleep()
    rows = []
    for number in numbers:
        rows.append(measured(options.folder / f"problem{number}", number))
        print(table(rows[-1:]), flush=True)
    if options.json:
        kept = json.loads(options.json.read_text())["rows"] if options.json.exists() else []
        rows += [row for row in kept if row["problem"] not in numbers]
        rows.sort(key=lambda row: row["problem"])
        document = {"schema": 1, "machine": describe_machine(), "equal": EQUAL, "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.table:
        options.table.write_text(table(rows))


if __name__ == "__main__":
    main()
