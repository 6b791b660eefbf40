"""``burnish demo``: the main job on three real models, in one table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from burnish.cli import console, options
from burnish.cli.files import check_writable
from burnish.cli.settings import absolute
from burnish.compiler.config import CompileConfig

MODELS = ("minilm", "efficientnet-lite0", "magika")
TRIALS = 6
"""Tuning trials a model: about three seconds each, so under a minute for all."""

SAMPLES = 50
"""Samples of each model's task that accuracy is scored on: the demo is no benchmark."""

FRAGILE = {"efficientnet-lite0": ("*depthwise*",)}
"""Weights left dense: a depthwise filter has nine, and losing two of each ruins the network."""

TIMING_S = 4.0
"""Seconds of timing for each row."""


@dataclass(frozen=True)
class Variant:
    """One row of a model: its label, and the fields of the config it is compiled with."""

    label: str
    fields: dict[str, Any]


VARIANTS = (
    Variant("fp32", {}),
    # Pruning promises size only and is kept whatever its speed: nothing to measure on the way.
    Variant("pruned 20 %", {"prune": 0.2, "do_no_harm": False}),
    Variant("int8 weights", {"quantize": "int8"}),
    Variant("tuned", {"tune": TRIALS}),
)

Out = Annotated[str, typer.Option("--out", "-o", metavar="FOLDER", help="For the reports.")]
Only = Annotated[
    list[str] | None, typer.Option("--model", metavar="NAME", help="Of the zoo. Can be repeated.")
]


def add_to(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    out: Out = "demo-report",
    model: Only = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Compile real models four ways and set each beside its baseline: one table, one page.

    The variants are fp32, pruned, int8 weights and tuned; the last three do one thing each.

    Examples:

    * `burnish demo`

    * `burnish demo --model magika --out magika-report`
    """
    folder = absolute(out)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("report.html", "report.json"):
        check_writable(folder / name)
    entries = [
        entry for name in model or MODELS for entry in _compare_variants(name, folder / "tuning")
    ]
    from burnish.compiler.report import print_tables, write_html, write_json

    write_html(folder / "report.html", entries, title="Burnish demo")
    write_json(folder / "report.json", entries)
    if console.flags.json:
        console.print_json({"schema": 1, "entries": entries})
        return
    print_tables(entries)
    console.results().print(f"{Path(out) / 'report.html'} shows the same with charts")


def _compare_variants(name: str, tuning: Path) -> list[dict[str, Any]]:
    """Each variant of one model beside its own run of the baseline."""
    import burnish
    from burnish import models

    with console.progress(f"{name}: fetching"):
        entry = models.load(name)
        inputs = entry.inputs(3)
    with console.progress(f"{name}: importing"):
        imported = burnish.import_model(entry.model, entry.example_inputs)
    scores: dict[str, float] = {}
    found = []
    for variant in VARIANTS:
        config = CompileConfig().overridden(**variant.fields)
        if config.prune is not None:
            config = config.overridden(prune=replace(config.prune, exclude=FRAGILE.get(name, ())))
        if config.tune is not None:
            fields = {"trials": config.tune.trials, "work_dir": tuning / name}
            config = config.overridden(tune=fields)
        step = f"{name}: {variant.label}"
        with console.progress(f"{step}, compiling"):
            optimized = burnish.optimize(imported, config=config)
        tuned = burnish.tune(optimized)
        with console.progress(f"{step}, beside its baseline"):
            compiled = burnish.build(tuned)

            def evaluate(run: Any, compiled: Any = compiled) -> float:
                """The task's score; the baseline's once, since it is the same each time."""
                if run is not compiled and "baseline" in scores:
                    return scores["baseline"]
                score = entry.evaluate(run, SAMPLES)
                return score if run is compiled else scores.setdefault("baseline", score)

            result = burnish.compare(
                entry.model, compiled, inputs, evaluate=evaluate, budget_s=TIMING_S
            )
        found.append(result.labelled(name, variant.label))
    return found
