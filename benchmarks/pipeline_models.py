"""The models of the pipeline benchmark, what their operators cost, and the files of its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MODELS = {"resnet50": "ResNet-50", "bert-base": "BERT-base, 128 tokens",
          "smollm2": "SmolLM2-135M prefill, 128 tokens"}  # fmt: skip


def problem_of(name: str) -> Any:
    """The model on one core, by the measured times of its operators."""
    from burnish import import_model
    from burnish.compiler.pipelines.core_sets import CoreSet
    from burnish.compiler.pipelines.costs import stage_problem
    from burnish.compiler.pipelines.make import cleaned
    from burnish.models import bench_nets

    graph = cleaned(import_model(*bench_nets.load(name)))
    return stage_problem(graph, [CoreSet("cpu@0", (0,))], said=print)


def write_row(path: Path, row: dict[str, Any]) -> None:
    """The file with this model's row, and what it had of the others."""
    from burnish.compiler.measure import describe_machine

    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text())["models"] if path.is_file() else []
    rows = [*(item for item in known if item["model"] != row["model"]), row]
    rows.sort(key=lambda item: list(MODELS).index(item["model"]))
    data = {"schema": 1, "machine": describe_machine(2), "models": rows}
    path.write_text(json.dumps(data, indent=1) + "\n")
