"""A model split over processes (tensor parallel) beside the whole: results, and bytes a process.

    python benchmarks/parallel.py [--model NAME ...] [--parts N ...] [--out FOLDER]

The whole is compiled for one thread; the ranks are processes of one thread each. Results are set
beside the whole's and beside PyTorch's, on the model's own inputs and on ``INPUTS`` random ones,
as max |y - reference| / max |reference|. Nothing is timed. Rows of other models and numbers of
processes in the results are kept. BERT-base is of that shape with weights drawn at random; MiniLM
and SmolLM2 have their real ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

MODELS = {"bert-base": "BERT-base, 128 tokens", "smollm2": "SmolLM2-135M, 128 tokens",
          "minilm": "MiniLM-L6, 128 tokens"}  # fmt: skip
PARTS = (2, 4)
INPUTS = 3
RESULTS = Path(__file__).parent / "results" / "parallel.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", choices=MODELS, help="all by default")
    parser.add_argument("--parts", action="append", type=int, help="2 and 4 by default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.model or MODELS:
        whole, given, net = loaded(name)
        for parts in options.parts or PARTS:
            row = compared(name, parts, whole, given, net)
            keep(options.out, row)
            print(json.dumps({key: value for key, value in row.items() if key != "title"}))
    return 0


def loaded(name: str) -> tuple[Any, list[tuple[Any, ...]], Any]:
    """The model compiled whole, inputs for it, and the network."""
    import torch

    import burnish
    from burnish.models.bench_nets import load

    net, inputs = load(name)
    given = [inputs]
    generator = torch.Generator().manual_seed(1)
    for _ in range(INPUTS):
        most = int(inputs[0].max()) + 1
        ids = torch.randint(0, most, inputs[0].shape, generator=generator)
        given.append((ids, *inputs[1:]))
    return burnish.compile(net, inputs, threads=1, do_no_harm=False), given, net


def compared(
    name: str, parts: int, whole: Any, given: list[tuple[Any, ...]], net: Any
) -> dict[str, Any]:
    """One row of the results."""
    import torch

    import burnish

    own, eager = 0.0, 0.0
    with burnish.tensor_parallel(net, given[0], ["cpu"] * parts) as run:
        for inputs in given:
            found = leaves(run(*inputs))
            with torch.no_grad():
                eager = max(eager, error(found, leaves(net(*inputs))))
            own = max(own, error(found, leaves(whole(*inputs))))
        report = run.report
    return {
        "model": name,
        "title": MODELS[name],
        "processes": parts,
        "error_to_whole": own,
        "error_to_eager": eager,
        "whole_bytes": report.whole_bytes,
        "parameter_bytes": report.parameter_bytes,
        "largest_share": max(report.shares),
        "whole_stored_bytes": whole.params_bytes,
        "stored_bytes": report.stored_bytes,
        "largest_stored_share": max(report.stored_bytes) / whole.params_bytes,
        "all_reduces": sum(one.kind == "all_reduce" for one in report.collectives),
        "all_gathers": sum(one.kind == "all_gather" for one in report.collectives),
        "collective_bytes": sum(one.bytes for one in report.collectives),
    }


def leaves(value: Any) -> list[np.ndarray]:
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    if isinstance(value, list | tuple):
        return [leaf for one in value for leaf in leaves(one)]
    return [np.asarray(value)]


def error(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    pairs = zip(found, wanted, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def keep(path: Path, row: dict[str, Any]) -> None:
    """Write the row in place of the one it renews."""
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    key = (row["model"], row["processes"])
    rows = [one for one in rows if (one["model"], one["processes"]) != key]
    order = list(MODELS)
    rows = sorted([*rows, row], key=lambda one: (order.index(one["model"]), one["processes"]))
    path.write_text(json.dumps({"schema": 1, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
