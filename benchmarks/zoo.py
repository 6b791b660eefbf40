"""Every zoo model beside its baseline: eager PyTorch, or ONNX Runtime for ONNX files.

    python benchmarks/zoo.py [--model NAME ...] [--quantize int8] [--accuracy] [--out FOLDER]

Each runtime has a process of its own; they take turns with equal threads, and rounds that other
processes disturbed are taken again. Writes ``zoo.json`` and ``zoo.html`` and prints the table; a
time marked ``?`` was taken on a machine that was not quiet.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import burnish
from burnish import models
from burnish.compiler.report import print_tables, write_html, write_json

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure, print and write; 1 if a model could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", choices=models.names(), help="all by default")
    parser.add_argument("--quantize", help="also with quantized weights, as int8 or w4g32")
    parser.add_argument("--accuracy", action="store_true", help="score each model's real task")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    entries: list[dict[str, Any]] = []
    failed = 0
    for name in options.model or models.names():
        variants: dict[str, dict[str, Any]] = {"fp32": {}}
        if options.quantize:
            variants[options.quantize] = {"quantize": options.quantize}
        for label, fields in variants.items():
            try:
                entries.append(measured(name, label, fields, options))
            except burnish.BurnishError as error:
                failed += 1
                print(f"{name} {label}: {error}", file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "zoo.json", entries)
    write_html(options.out / "zoo.html", entries, title="The zoo beside its baselines")
    print_tables(entries)
    return 1 if failed else 0


def measured(
    name: str, label: str, fields: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """One model, compiled and compared."""
    print(f"{name} {label}", file=sys.stderr, flush=True)
    zoo = models.load(name)
    compiled = burnish.compile(zoo.model, zoo.example_inputs, **fields)
    result = burnish.compare(
        zoo.model,
        compiled,
        [zoo.example_inputs, *zoo.inputs(3)],
        evaluate=zoo.evaluate if options.accuracy else None,
        rounds=options.rounds,
        budget_s=20.0,
    )
    return result.labelled(name, label)


if __name__ == "__main__":
    sys.exit(main())
