"""How far each placement algorithm is from the best, on 200 generated problems.

    python benchmarks/placement.py [--problems 200] [--json FILE] [--table FILE]

Problems of 6 to 9 operators, chains, branches and general graphs, for two and three devices, with
and without memory limits, are placed by every algorithm, with devices that take turns and with
devices that overlap, and held against every placement there is. A gap is the predicted latency
over the best one, less 1. The problems are drawn from the seeds 0 to 199: the same ones each time.
Search times are those of one thread, and depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from burnish.compiler.placement import chain, cut, exhaustive, greedy, ilp, learned
from burnish.compiler.placement.errors import PlacementError
from burnish.compiler.placement.problem import Problem
from burnish.compiler.placement.synthetic import Shape, synthetic

SHAPES: tuple[Shape, ...] = ("chain", "branches", "general")
ALGORITHMS = {
    "greedy": greedy.place,
    "dp": chain.place,
    "cut": cut.place,
    "ilp": ilp.place,
    "learned": learned.place,
}
OPTIMAL = 1e-6
"""The gap up to which a placement counts as the best."""


def drawn(seed: int) -> Problem:
    """The problem of a seed: every kind of them in turn."""
    return synthetic(
        seed,
        nodes=6 + seed % 4,
        devices=2 + seed // 4 % 2,
        shape=SHAPES[seed // 8 % 3],
        memory=0.7 if seed // 24 % 2 else None,
        groups=seed % 7 == 0,
    )


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--json", type=Path, help="write every problem's figures there")
    parser.add_argument("--table", type=Path, help="write the table there, as Markdown")
    options = parser.parse_args()
    rows = [row for seed in range(options.problems) for row in compared(seed)]
    summary = summarized(rows)
    text = table(summary)
    print(text)
    if options.json:
        lists = {"summary": summary, "rows": rows}
        parts = [f'"schema": 1, "problems": {options.problems}']
        for name, items in lists.items():
            lines = (json.dumps(rounded(item)) for item in items)
            parts.append(f'"{name}": [\n' + ",\n".join(lines) + "\n]")
        options.json.write_text("{" + ",\n".join(parts) + "}\n")
    if options.table:
        options.table.write_text(text)


def compared(seed: int) -> list[dict[str, Any]]:
    """The figures of one problem, in turns and overlapped."""
    problem, found = drawn(seed), []
    for overlap in (False, True):
        try:
            best: float | None = exhaustive.place(problem, overlap=overlap).seconds
        except PlacementError:
            best = None
        row: dict[str, Any] = {"seed": seed, "overlap": overlap, "best_seconds": best}
        row |= {"nodes": len(problem.nodes), "devices": len(problem.devices)}
        row |= {"shape": SHAPES[seed // 8 % 3], "limits": bool(problem.limits)}
        for name, place in ALGORITHMS.items():
            start = time.perf_counter()
            try:
                answer = place(problem, overlap=overlap)
            except PlacementError as error:
                one: dict[str, Any] = {"fault": error.message}
            else:
                one = {"seconds": answer.seconds, "exact": answer.exact}
                assert best is not None
                one["gap"] = max(0.0, answer.seconds / best - 1)
            row[name] = {**one, "search_seconds": time.perf_counter() - start}
        found.append(row)
    return found


def summarized(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each execution and algorithm: counts, gaps and times, over what has a placement."""
    found = []
    for overlap in (False, True):
        here = [r for r in rows if r["overlap"] == overlap and r["best_seconds"] is not None]
        for name in ALGORITHMS:
            answers = [row[name] for row in here if "gap" in row[name]]
            gaps = [answer["gap"] for answer in answers]
            called = [answer for answer in answers if answer["exact"]]
            times = [row[name]["search_seconds"] for row in here]
            found.append(
                {
                    "overlap": overlap,
                    "algorithm": name,
                    "problems": len(here),
                    "placed": len(answers),
                    "optimal": sum(gap <= OPTIMAL for gap in gaps),
                    "called_exact": len(called),
                    "wrongly_called_exact": sum(one["gap"] > OPTIMAL for one in called),
                    "mean_gap": statistics.fmean(gaps),
                    "max_gap": max(gaps),
                    "median_search_seconds": statistics.median(times),
                    "max_search_seconds": max(times),
                }
            )
    return found


def rounded(value: Any) -> Any:
    """With six significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def table(summary: list[dict[str, Any]]) -> str:
    """The summary as a Markdown table."""
    lines = [
        "| devices | algorithm | placed | the best | called exact | mean gap | largest gap "
        "| search, median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in summary:
        lines.append(
            f"| {'overlap' if row['overlap'] else 'take turns'} | {row['algorithm']} "
            f"| {row['placed']} of {row['problems']} | {row['optimal']} | {row['called_exact']} "
            f"| {row['mean_gap']:.1%} | {row['max_gap']:.1%} "
            f"| {row['median_search_seconds'] * 1e3:.1f} ms |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
