"""A pipeline over two single cores beside one core, two threads in each operator, and two copies.

    python benchmarks/pipeline.py costs [--model NAME ...]
    python benchmarks/pipeline.py prepare [--model NAME ...] [--folder FOLDER]
    python benchmarks/pipeline.py measure [--model NAME ...] [--folder FOLDER] [--out FOLDER]
    python benchmarks/pipeline.py scale [--model NAME ...] [--out FOLDER]

``costs`` times the models' operators, each alone, and ``measure`` the models, for about a minute
each: both want a quiet machine. ``prepare`` compiles between them. What is measured:

    one core      the whole model, one thread, bound to core 0
    pipeline      two stages as processes, on core 0 and on core 1, fed by this process, which is
                  bound to neither
    two threads   the whole model, two threads inside its operators, on both cores
    two copies    the whole model twice, one thread each, on core 0 and on core 1

They take turns, calls of batch 1 as fast as they go; a call's result is not waited for by the next
one in the pipeline only. Throughput is the median over the rounds; times of a machine that was not
quiet are marked ``?``. Each of the two-core forms is set beside the one core of its own round.

``scale`` says by simulation, from the times of the operators, what up to 64 such cores would do
with 512 micro-batches over links of three kinds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pipeline_models import MODELS, problem_of, write_row
from pipeline_scaling import scaled
from pipeline_servers import Server

FORMS = ("one core", "pipeline", "two threads", "two copies")
CORES = (0, 1)
FOLDER = Path("build/pipeline-bench")
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("costs", "prepare", "measure", "scale"))
    parser.add_argument("--model", action="append", choices=MODELS, help="all by default")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a form in a round")
    options = parser.parse_args()
    for name in options.model or MODELS:
        if options.what == "costs":
            costs(name)
        elif options.what == "scale":
            scaled(name, options.out)
        elif options.what == "prepare":
            prepare(name, options.folder / name)
        else:
            measured(name, options)
    return 0


def costs(name: str) -> None:
    """Time the operators that are not known yet, on one core."""
    os.sched_setaffinity(0, CORES[:1])
    problem = problem_of(name)
    whole = sum(next(iter(node.seconds.values())) for node in problem.nodes)
    print(f"{name}: {len(problem.nodes)} groups, {1e3 * whole:.2f} ms together")


def prepare(name: str, folder: Path) -> None:
    """The whole model for one thread and for two, the two stages, and inputs."""
    import burnish
    from burnish.models import bench_nets

    net, inputs = bench_nets.load(name)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = [np.asarray(value) for value in inputs]
    np.savez(folder / "inputs.npz", **{f"input{i}": array for i, array in enumerate(arrays)})
    want = burnish.compile(net, inputs, threads=1)
    want.save(folder / "one.burnish")
    burnish.compile(net, inputs, threads=2).save(folder / "two.burnish")
    with burnish.pipeline(
        net, inputs, [f"cpu@{core}" for core in CORES], 1, name=name, folder=folder / "stages",
        said=lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True),
    ) as run:  # fmt: skip
        from burnish.compiler.parity import parity

        error = parity(run(*arrays), want(*arrays)).rel
    (folder / "parity.json").write_text(json.dumps({"rel": error}) + "\n")
    print(f"{name}: ready; the pipeline differs from the whole by {error:.2g}", file=sys.stderr)


def measured(name: str, options: argparse.Namespace) -> None:
    """Measure one model in turns, and write ``pipeline.json`` with it."""
    import burnish
    from burnish.compiler.measure.load import LoadMeter

    folder = options.folder / name
    arrays = list(np.load(folder / "inputs.npz").values())
    rates: dict[str, list[float]] = {form: [] for form in FORMS}
    others: list[float] = []
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(Server(folder, "one.burnish", (core,))) for core in CORES
        )
        both = stack.enter_context(Server(folder, "two.burnish", CORES))
        run = stack.enter_context(burnish.load_pipeline(folder / "stages"))
        run(*arrays)
        mine = [first.process.pid, second.process.pid, both.process.pid, *run.pids]
        for _ in range(options.rounds):
            meter = LoadMeter([*mine, os.getpid()])
            for form in FORMS:
                rates[form].append(_rate(form, options.seconds, first, second, both, run, arrays))
            others.append(meter.others())
        timeline, report = run.timeline, run.report
    row = {
        "model": name,
        "title": MODELS[name],
        "per_second": {form: statistics.median(found) for form, found in rates.items()},
        "rounds": rates,
        "times_one_core": {
            form: statistics.median(
                [two / one for two, one in zip(found, rates["one core"], strict=True)]
            )
            for form, found in rates.items()
        },
        "stages": [
            {"device": s.device, "predicted_ms": s.predicted_ms, "measured_ms": s.measured_ms,
             "operators": s.operators, "weight_bytes": s.weight_bytes,
             "sent_bytes": s.sent_bytes}
            for s in report.stages
        ],
        "bubble": report.bubble,
        "predicted_per_second": 1e3 / max(s.predicted_ms for s in report.stages),
        "parity": json.loads((folder / "parity.json").read_text())["rel"],
        "others": max(others),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    write_row(options.out / "pipeline.json", row)
    timeline.draw(options.out / f"pipeline-{name}.png")
    print_row(row)


def _rate(
    form: str,
    seconds: float,
    first: Server,
    second: Server,
    both: Server,
    run: Any,
    arrays: list[np.ndarray],
) -> float:
    """Calls a second."""
    if form == "pipeline":
        return _stream(run, arrays, seconds)
    servers = {"one core": [first], "two threads": [both], "two copies": [first, second]}[form]
    for server in servers:
        server.begin(seconds)
    return sum(server.rate() for server in servers)


def _stream(run: Any, arrays: list[np.ndarray], seconds: float) -> float:
    """Results a second between the first and the last."""
    start = time.monotonic()

    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        while time.monotonic() - start < seconds:
            yield tuple(arrays)

    ends = [time.monotonic() for _ in run.stream(batches())]
    return (len(ends) - 1) / (ends[-1] - ends[0])


def print_row(row: dict[str, Any]) -> None:
    mark = " ?" if row["others"] >= 0.1 else ""
    print(f"{row['title']}{mark}")
    for form in FORMS:
        rate, times = row["per_second"][form], row["times_one_core"][form]
        print(f"  {form:12} {rate:8.2f} a second  {times:5.2f} times one core")
    stages = ", ".join(f"{s['measured_ms']:.2f} ({s['predicted_ms']:.2f})" for s in row["stages"])
    print(f"  stages took {stages} ms (as expected from the operators' costs)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
