"""What up to 64 cores would do with one model as a pipeline, simulated from operators' times."""

from __future__ import annotations

from pathlib import Path

from pipeline_models import MODELS, problem_of, write_row

COUNTS, MANY = (1, 2, 4, 8, 16, 32, 64), 512
"""Cores, and micro-batches."""
LINKS = {
    "shared memory": (1e-4, 2e10),
    "10 Gbit/s Ethernet": (5e-5, 1.1e9),
    "1 Gbit/s Ethernet": (1e-4, 1.1e8),
}
"""Seconds of latency, and bytes a second."""


def scaled(name: str, out: Path) -> None:
    """Write ``pipeline-scaling.json`` with the model."""
    from burnish.compiler.placement.simulate import scaling

    problem = problem_of(name)
    alone = sum(node.seconds["cpu@0"] for node in problem.nodes)
    rows = []
    for link, (latency, rate) in LINKS.items():
        found = scaling(
            problem, "cpu@0", [n for n in COUNTS if n <= len(problem.nodes)],
            micro_batches=MANY, latency_seconds=latency, bytes_per_second=rate,
        )  # fmt: skip
        rows += [
            {"link": link, "devices": one.devices, "times_one": one.times,
             "bubble": one.simulation.bubble, "slowest_ms": 1e3 * one.cut.slowest,
             "limit": one.simulation.limit}
            for one in found
        ]  # fmt: skip
        print(f"{MODELS[name]}, {link}: " + ", ".join(f"{r.devices}: {r.times:.1f}" for r in found))
    row = {"model": name, "one_core_ms": 1e3 * alone, "micro_batches": MANY, "simulated": rows}
    write_row(out / "pipeline-scaling.json", row)
