"""A model of two equal branches on two cores at once, against one core: predicted and measured.

    python benchmarks/branches.py --prepare FOLDER        # compile, by measured cost
    python benchmarks/branches.py FOLDER [--json FILE]    # time both, in one run, turn by turn

Each branch is a stack of linear layers over the same input; they are added, and a small layer
follows. One core is ``cpu`` with one thread; two are ``hetero:cpu@A,cpu@B`` with
``placement="auto"``. The prediction comes from operators timed alone, before any call of a model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch

import burnish
from burnish.compiler.measure import describe_machine

WIDTH, LAYERS = 1024, 6
ROWS = (64, 256)
ROUNDS, CALLS = 9, 10


class Branches(torch.nn.Module):
    """Two stacks of linear layers, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = self._stack(), self._stack()
        self.last = torch.nn.Linear(WIDTH, 16)

    @staticmethod
    def _stack() -> torch.nn.Sequential:
        pairs = [(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU()) for _ in range(LAYERS)]
        return torch.nn.Sequential(*(one for pair in pairs for one in pair))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.left(x) + self.right(x))


def model(rows: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """The network and an input, the same each time."""
    torch.manual_seed(0)
    return Branches().eval(), torch.randn(rows, WIDTH)


def prepare(folder: Path, rows: int) -> None:
    """Compile for one core and for two, and save both with what was predicted."""
    net, x = model(rows)
    first, second = sorted(os.sched_getaffinity(0))[:2]
    one = burnish.compile(net, (x,), target="cpu", threads=1, cache=False)
    target = f"hetero:cpu@{first},cpu@{second}"
    both = burnish.compile(net, (x,), target=target, placement={"*": "auto"}, cache=False)
    folder.mkdir(parents=True, exist_ok=True)
    one.save(folder / "one.burnish")
    both.save(folder / "both.burnish")
    details = next(row.details for row in both.report.rows if row.name == "PartitionGraph")
    (folder / "predicted.json").write_text(json.dumps(details["placement"], indent=1))
    print(f"{rows} rows: {details['placement']['predicted_ms']:.2f} ms expected on two cores")


def timed(folder: Path, rows: int) -> dict[str, object]:
    """Both in turns; medians in milliseconds."""
    net, x = model(rows)
    models = {name: burnish.load(folder / f"{name}.burnish") for name in ("one", "both")}
    with torch.no_grad():
        expected = net(x)
    worst = {name: float((each(x) - expected).abs().max()) for name, each in models.items()}
    rounds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, each in models.items():
            each(x)
            start = time.perf_counter()
            for _ in range(CALLS):
                each(x)
            rounds[name].append(1e3 * (time.perf_counter() - start) / CALLS)
    medians = {name: statistics.median(found) for name, found in rounds.items()}
    predicted = json.loads((folder / "predicted.json").read_text())
    alone = [
        row["predicted_ms"]
        for row in predicted["candidates"]
        if row["algorithm"].startswith("all on") and row["predicted_ms"] is not None
    ]
    return {
        "rows": rows,
        "algorithm": predicted["algorithm"],
        "predicted_ms": {"one": min(alone), "both": predicted["predicted_ms"]},
        "measured_ms": medians,
        "rounds_ms": rounds,
        "predicted_times_faster": min(alone) / predicted["predicted_ms"],
        "times_faster": medians["one"] / medians["both"],
        "largest_difference": worst,
    }


def main() -> None:
    """Prepare, or time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prepare", action="store_true", help="compile and save")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    folders = {rows: options.folder / f"rows{rows}" for rows in ROWS}
    if options.prepare:
        for rows, folder in folders.items():
            prepare(folder, rows)
        return
    cases = [timed(folder, rows) for rows, folder in folders.items()]
    model_is = {"width": WIDTH, "layers": LAYERS}
    found = {"schema": 1, "machine": describe_machine(), "model": model_is, "cases": cases}
    text = json.dumps(found, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
